"""A webhook arrives at least once, always with the same id, whatever its receiver does and whoever dies on the way."""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import SecretStr

from tests.fixtures.book import until
from tests.fixtures.receiver import FORMER_SECRET, SECRET, Receiver, receiving, webhook_settings
from trilogue import clock
from trilogue.entry import Draft, Kind
from trilogue.ledger import DeliveryRow, DeliveryStatus, Ledger
from trilogue.settings import Settings, load_settings
from trilogue.webhooks import deliver_due, deliver_for_ever, delivering
from trilogue.webhooks.delivering import AT_ONCE, PER_RECEIVER, WAITS

EAGER: Sequence[float] = (0.01, 0.01, 0.01)
EVERY = 0.02


@dataclass(frozen=True, kw_only=True)
class Office:
    """A ledger and settings: all that sending needs."""

    ledger: Ledger
    settings: Settings

    async def webhook(self, delivery_id: str | None = None) -> DeliveryRow:
        found = (await self.ledger.deliveries("default")).items
        [row] = [row for row in found if delivery_id in {None, row.delivery_id}]
        return row

    async def is_(self, status: DeliveryStatus) -> bool:
        return (await self.webhook()).status is status


MakeOffice = Callable[..., Office]


@pytest.fixture
def office_with(ledger: Ledger) -> MakeOffice:
    """Makes offices over the one ledger, with settings by field name."""
    return lambda **more: Office(ledger=ledger, settings=load_settings(**webhook_settings(**more)))


@pytest.fixture
def office(office_with: MakeOffice) -> Office:
    return office_with()


async def _ended(ledger: Ledger, url: str, pipeline_id: str = "p-1") -> None:
    first = Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree", "webhook": url})
    await ledger.spawn("default", pipeline_id, [first], at=clock.now())
    failed = {"status": "FAILED", "error": {"code": "c", "message": "m"}}
    await ledger.append_outside(
        "default", pipeline_id, lambda _: [Draft(kind=Kind.STATUS, body=failed)], at=clock.now()
    )


@asynccontextmanager
async def _sending(office: Office, **asked: Any) -> AsyncIterator[None]:
    sending = asyncio.create_task(deliver_for_ever(office, every=EVERY, **({"waits": EAGER} | asked)))
    yield
    assert not sending.done()
    sending.cancel()
    await asyncio.wait({sending})


async def test_a_receiver_that_fails_is_tried_again_until_it_takes_it(office: Office, receiver: Receiver) -> None:
    receiver.answers = [500, 302, 429, 200]
    await _ended(office.ledger, receiver.url)
    async with _sending(office):
        await until(lambda: office.is_(DeliveryStatus.DELIVERED))
    row = await office.webhook()
    assert (row.tries, row.error, row.due_at) == (4, None, None)
    assert {seen.id for seen in receiver.seen} == {row.delivery_id}
    assert [seen.document["data"]["pipeline_id"] for seen in receiver.seen] == ["p-1"] * 4


async def test_after_the_last_try_it_is_given_up_with_its_last_error(office: Office, receiver: Receiver) -> None:
    receiver.answers = [500, 500, 500, 503]
    await _ended(office.ledger, receiver.url)
    async with _sending(office):
        await until(lambda: office.is_(DeliveryStatus.FAILED))
    row = await office.webhook()
    assert (row.tries, row.error, row.due_at, len(receiver.seen)) == (4, "answered 503", None, 4)
    assert await deliver_due(office) == 0


async def test_a_receiver_that_is_gone_for_good_is_not_tried_again(office: Office, receiver: Receiver) -> None:
    receiver.answers = [410]
    await _ended(office.ledger, receiver.url)
    assert await deliver_due(office) == 1
    row = await office.webhook()
    assert (row.status, row.error) == (DeliveryStatus.FAILED, "answered 410")


async def test_the_waits_grow_to_half_a_day_and_last_a_day_in_all(office: Office, receiver: Receiver) -> None:
    assert list(WAITS[:5]) == [5, 30, 120, 600, 3600]
    assert 24 <= sum(WAITS) / 3600 < 25
    receiver.answers = [500]
    await _ended(office.ledger, receiver.url)
    before = clock.now()
    await deliver_due(office)
    due_at = (await office.webhook()).due_at
    assert due_at
    assert 3.9 <= (due_at - before) / clock.SECOND <= 7
    assert await deliver_due(office) == 0, "it is not due yet"


async def test_nobody_listening_and_a_refused_address_are_tried_again_too(office_with: MakeOffice) -> None:
    async with receiving() as gone:
        url = gone.url
    allowed, strict = office_with(), office_with(webhook_allow_private=False)
    await _ended(allowed.ledger, url)
    assert await deliver_due(allowed, waits=[0, 0, 0]) == 1
    assert (await allowed.webhook()).error == "cannot be connected to"
    await until(lambda: _tried(strict))
    row = await strict.webhook()
    assert row.status is DeliveryStatus.PENDING
    assert "must begin with https://" in str(row.error)


async def _tried(office: Office) -> bool:
    return await deliver_due(office, waits=[0, 0, 0]) == 1


async def test_slow_receivers_keep_nobody_else_waiting(office: Office, receiver: Receiver) -> None:
    async with receiving() as slow:
        slow.release = asyncio.Event()
        for number in range(AT_ONCE + 4):
            await _ended(office.ledger, slow.url, f"slow-{number}")
        async with _sending(office):
            await until(lambda: slow.begun == PER_RECEIVER)
            await _ended(office.ledger, receiver.url)
            await until(lambda: len(receiver.seen) == 1, 3)
            assert slow.begun <= 2 * PER_RECEIVER
            slow.release.set()
            await until(lambda: len(slow.seen) == AT_ONCE + 4)
    assert len({seen.id for seen in slow.seen}) == AT_ONCE + 4


async def test_several_senders_send_each_webhook_once(office: Office, ledger_url: str, receiver: Receiver) -> None:
    for number in range(12):
        await _ended(office.ledger, receiver.url, f"p-{number}")
    other = Office(ledger=await Ledger.open(ledger_url, migrate=False), settings=office.settings)
    async with _sending(office), _sending(other):
        await until(lambda: len(receiver.seen) >= 12)
        await until(lambda: _all_delivered(office))
    assert len({seen.id for seen in receiver.seen}) == len(receiver.seen) == 12
    await other.ledger.close()


async def _all_delivered(office: Office) -> bool:
    return not (await office.ledger.deliveries("default", status=DeliveryStatus.PENDING)).items


async def test_without_a_secret_webhooks_are_left_to_those_who_have_it(
    office_with: MakeOffice, receiver: Receiver
) -> None:
    without, with_it = office_with(webhook_secret=None), office_with()
    await _ended(without.ledger, receiver.url)
    assert await deliver_due(without) == 0
    assert (await without.webhook()).tries == 0
    async with delivering(without, every=EVERY):
        pass
    assert await deliver_due(with_it) == 1
    assert len(receiver.seen) == 1


async def test_on_leaving_in_order_what_is_due_by_then_is_sent(office: Office, receiver: Receiver) -> None:
    receiver.release = asyncio.Event()
    async with delivering(office, every=60):
        await _ended(office.ledger, receiver.url, "p-1")
        asyncio.get_running_loop().call_later(0.1, receiver.release.set)
    assert len(receiver.seen) == 1
    assert await office.is_(DeliveryStatus.DELIVERED)


async def test_a_ledger_that_is_away_is_waited_for(
    receiver: Receiver, own_postgres: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = await Ledger.open(own_postgres.url, migrate=False)
    office = Office(ledger=ledger, settings=load_settings(**webhook_settings()))
    async with _sending(office):
        await asyncio.to_thread(own_postgres.kill)
        await until(lambda: "webhooks wait" in caplog.text, 20)
        await asyncio.to_thread(own_postgres.start)
        await _ended(ledger, receiver.url)
        await until(lambda: len(receiver.seen) == 1, 20)
    assert caplog.text.count("webhooks wait") <= 2
    await ledger.close()


_SENDER = """
import asyncio, sys
from dataclasses import dataclass
from trilogue.ledger import Ledger
from trilogue.settings import Settings, load_settings
from trilogue.webhooks import deliver_for_ever

@dataclass
class Office:
    ledger: Ledger
    settings: Settings

async def main():
    ledger = await Ledger.open(sys.argv[1], migrate=False)
    await deliver_for_ever(Office(ledger, load_settings()), every=0.05)

asyncio.run(main())
"""


async def test_a_sender_killed_on_the_way_leaves_the_webhook_to_the_next_with_the_same_id(
    migrated_sqlite_url: str, receiver: Receiver
) -> None:
    ledger = await Ledger.open(migrated_sqlite_url, migrate=False)
    office = Office(ledger=ledger, settings=load_settings(**webhook_settings(webhook_timeout=0.2)))
    receiver.release = asyncio.Event()
    environment = {
        "TRILOGUE_WEBHOOK_SECRET": SECRET,
        "TRILOGUE_WEBHOOK_ALLOW_PRIVATE": "true",
        "TRILOGUE_WEBHOOK_TIMEOUT": "0.2",
    }
    sender = await asyncio.create_subprocess_exec(sys.executable, "-c", _SENDER, migrated_sqlite_url, env=environment)
    try:
        await _ended(office.ledger, receiver.url)
        await until(lambda: receiver.begun == 1, 20)
    finally:
        sender.send_signal(signal.SIGKILL)
        await sender.wait()
    assert (await office.webhook()).status is DeliveryStatus.PENDING
    receiver.release.set()
    async with _sending(office):
        await until(lambda: office.is_(DeliveryStatus.DELIVERED))
    assert {seen.id for seen in receiver.seen} == {(await office.webhook()).delivery_id}
    await ledger.close()


async def test_neither_secret_nor_path_shows_in_a_log_an_error_or_an_entry(
    office_with: MakeOffice, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    office = office_with(webhook_secret=SecretStr(f"{SECRET} {FORMER_SECRET}"))
    receiver.answers = [500]
    await _ended(office.ledger, f"{receiver.url}/path-hush?key=query-hush")
    await _ended(office.ledger, "https://127.0.0.1:1/path-hush", "p-2")
    await deliver_due(office)
    rows = (await office.ledger.deliveries("default")).items
    assert "answered 500" in caplog.text
    assert "/path-hush?key=query-hush" in rows[1].url
    told = " ".join([caplog.text, *(f"{row.error}{row.body}" for row in rows)])
    for secret in (SECRET, FORMER_SECRET, SECRET.removeprefix("whsec_"), "-hush"):
        assert secret not in told
    stored = " ".join(str(entry.body) for entry in await office.ledger.entries("default", "p-1"))
    assert SECRET.removeprefix("whsec_") not in stored
