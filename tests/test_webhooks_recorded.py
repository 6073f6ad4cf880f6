"""Every end of a pipeline is put down as a webhook in the very commit that ends it; one process at a time has it."""

import asyncio
import json
from typing import Any

import pytest

from tests.driving import MakeDriver
from tests.fixtures.book import until
from tests.fixtures.receiver import Receiver, webhook_settings
from trilogue import clock
from trilogue.board import NOTHING
from trilogue.clock import iso
from trilogue.entry import Draft, Kind
from trilogue.errors import Fenced, Invalid
from trilogue.ledger import DeliveryRow, DeliveryStatus, Fence, Ledger
from trilogue.ledger.identities import AT_THE_TERMINAL
from trilogue.ledger.stopping import stop
from trilogue.pipeline import Status
from trilogue.testing.openrouter import OpenRouterServer
from trilogue.webhooks import deliver_due

URL = "https://example.com/hooks"
AT = 1_767_225_600_000_000
NO_WAIT: dict[str, Any] = {"per_receiver": 100, "busy": (), "hold_seconds": 60.0}


def _spawned(url: str | None = URL, **body: object) -> list[Draft]:
    return [Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "agree\n on  it", "webhook": url, **body})]


def _status(status: Status, *, resumed: bool = False) -> Draft:
    failed = status.ended and status is not Status.COMPLETED
    error = {"code": "why", "message": f"it is {status}"} if failed else None
    return Draft(kind=Kind.STATUS, body={"status": status.value, "error": error, "resumed": resumed})


def _turn(**used: object) -> Draft:
    body: dict[str, object] = {"turn": 1, "agent_id": "alpha-1", "phase": "RUN", "round": 0, "outcome": "acted"}
    body |= {"model": "m", "reserved": NOTHING.as_json(), "settled": {**NOTHING.as_json(), "estimated": False}}
    return Draft(kind=Kind.TURN_ENDED, actor="alpha-1", body={**body, "calls": 1, **used})


async def _at_work(ledger: Ledger, pipeline_id: str, url: str | None = URL, **body: object) -> Fence:
    await ledger.spawn("default", pipeline_id, _spawned(url, **body), at=AT)
    claim = await ledger.claim("default", pipeline_id, owner="w", lease_seconds=60, flow_run_id=None)
    await ledger.append(claim.fence, [_status(Status.RUNNING)], at=AT)
    return claim.fence


async def _recorded(ledger: Ledger, **asked: Any) -> list[DeliveryRow]:
    return (await ledger.deliveries("default", **asked)).items


async def _claimed(ledger: Ledger, limit: int = 100, **asked: Any) -> list[DeliveryRow]:
    return await ledger.claim_deliveries(limit=limit, **(NO_WAIT | asked))


async def test_each_end_is_put_down_once_with_what_it_was(ledger: Ledger) -> None:
    for end in sorted(status for status in Status if status.ended):
        fence = await _at_work(ledger, f"p-{end.lower()}")
        course = [] if end in {Status.FAILED, Status.STOPPED} else [Status.REPORT, Status.ORCHESTRATING]
        entries = await ledger.append(fence, [_status(status) for status in [*course, end]], at=AT + 5)
        [webhook] = await _recorded(ledger, pipeline_id=f"p-{end.lower()}")
        document = json.loads(webhook.body)
        assert (webhook.seq, webhook.url, webhook.status, webhook.tries) == (
            entries[-1].seq,
            URL,
            DeliveryStatus.PENDING,
            0,
        )
        assert document["type"] == f"pipeline.{end.value.lower()}"
        assert (document["data"]["status"], document["data"]["seq"]) == (end.value, entries[-1].seq)
        assert document["timestamp"] == document["data"]["ended_at"] == iso(AT + 5)
        assert (document["data"]["error"] or {}).get("message") == (None if end is Status.COMPLETED else f"it is {end}")
    assert len({webhook.delivery_id for webhook in await _recorded(ledger)}) == 6


async def test_a_webhook_says_what_was_agreed_and_what_it_cost(ledger: Ledger) -> None:
    fence = await _at_work(
        ledger, "p-1", project="team", labels=["a", "b"], external_id="mine", max_cost_nanousd=None, **{"x": "é"}
    )
    usage = {"input_tokens": 10, "output_tokens": 5, "cached_tokens": 0}
    consensus = {"title": "Größe 😀", "text": "long", "decided_by": "votes", "uncontested": False, "votes": []}
    drafts = [
        _turn(usage=usage, cost_nanousd=250_000_000),
        _status(Status.REPORT),
        _status(Status.ORCHESTRATING),
        Draft(kind=Kind.CONSENSUS, body=consensus),
        _status(Status.COMPLETED),
    ]
    await ledger.append(fence, drafts, at=AT)
    [webhook] = await _recorded(ledger)
    data = json.loads(webhook.body)["data"]
    assert data | {"seq": 0} == {
        "pipeline_id": "p-1",
        "seq": 0,
        "tenant": "default",
        "project": "team",
        "status": "COMPLETED",
        "round": 0,
        "objective": "agree on it",
        "error": None,
        "consensus": {"title": "Größe 😀", "decided_by": "votes", "uncontested": False},
        "cost_usd": 0.25,
        "tokens": {"input": 10, "output": 5},
        "ended_at": iso(AT),
        "labels": ["a", "b"],
        "external_id": "mine",
    }
    unknown = await _at_work(ledger, "p-2")
    await ledger.append(unknown, [_turn(usage=usage, cost_nanousd=None), _status(Status.FAILED)], at=AT)
    [webhook] = await _recorded(ledger, pipeline_id="p-2")
    assert json.loads(webhook.body)["data"]["cost_usd"] is None


async def test_a_stop_from_outside_and_every_later_end_are_put_down_too(ledger: Ledger) -> None:
    fence = await _at_work(ledger, "p-1")
    await stop(ledger, "default", "p-1", "enough", by=AT_THE_TERMINAL)
    await ledger.append_outside("default", "p-1", lambda _: [_status(Status.RUNNING, resumed=True)], at=AT)
    claim = await ledger.claim("default", "p-1", owner="w", lease_seconds=60, flow_run_id=None)
    with pytest.raises(Fenced):
        await ledger.append(fence, [_status(Status.FAILED)], at=AT)
    await ledger.append(claim.fence, [_status(Status.FAILED)], at=clock.now())
    types = [json.loads(webhook.body)["type"] for webhook in await _recorded(ledger)]
    assert sorted(types) == ["pipeline.failed", "pipeline.stopped"]


async def test_an_end_that_is_not_committed_leaves_no_webhook_and_one_without_a_receiver_neither(
    ledger: Ledger,
) -> None:
    fence = await _at_work(ledger, "p-1")
    with pytest.raises(Invalid):
        await ledger.append(fence, [_status(Status.FAILED), Draft(kind=Kind.CHECKPOINT, body={})], at=AT)
    without = await _at_work(ledger, "p-2", None)
    await ledger.append(without, [_status(Status.FAILED)], at=AT)
    await ledger.spawn("default", "p-3", [Draft(kind=Kind.PIPELINE_SPAWNED, body={"objective": "old"})], at=AT)
    await stop(ledger, "default", "p-3", "", by=AT_THE_TERMINAL)
    assert await _recorded(ledger) == []
    assert await _claimed(ledger) == []


async def _ended(ledger: Ledger, count: int, url: str = URL, prefix: str = "p") -> None:
    for number in range(count):
        fence = await _at_work(ledger, f"{prefix}-{number}", url)
        await ledger.append(fence, [_status(Status.FAILED)], at=AT + number)


async def test_processes_that_claim_at_once_share_the_webhooks_without_one_twice(
    ledger: Ledger, ledger_url: str
) -> None:
    await _ended(ledger, 20)
    others = [await Ledger.open(ledger_url, migrate=False) for _ in range(3)]
    claims = await asyncio.gather(*(_claimed(one, limit=4) for one in [ledger, *others] * 3))
    claimed = [webhook.delivery_id for claim in claims for webhook in claim]
    while more := await _claimed(ledger):
        claimed += [webhook.delivery_id for webhook in more]
    assert len(claimed) == len(set(claimed)) == 20
    await asyncio.gather(*(other.close() for other in others))


async def test_a_claim_that_is_over_can_be_made_again_and_the_first_one_then_settles_nothing(ledger: Ledger) -> None:
    await _ended(ledger, 1)
    [first] = await _claimed(ledger, hold_seconds=0.0)
    again: list[DeliveryRow] = []

    async def claimed_again() -> bool:
        again.extend(await _claimed(ledger))
        return bool(again)

    await until(claimed_again)
    assert (again[0].delivery_id, again[0].tries) == (first.delivery_id, 2)
    await ledger.settle_delivery(first, error="answered 410", again_in=None)
    [row] = await _recorded(ledger)
    assert (row.status, row.error, row.ended_at) == (DeliveryStatus.PENDING, None, None)
    await ledger.settle_delivery(again[0], error=None, again_in=None)
    [row] = await _recorded(ledger)
    assert (row.status, row.due_at, row.ended_at is not None) == (DeliveryStatus.DELIVERED, None, True)


async def test_a_receiver_with_much_to_get_keeps_no_other_waiting(ledger: Ledger) -> None:
    await _ended(ledger, 9, "https://busy.example/", "busy")
    await _ended(ledger, 1)
    claimed = await _claimed(ledger, limit=4, per_receiver=3)
    assert sorted(webhook.url for webhook in claimed) == [*["https://busy.example/"] * 3, URL]
    assert await _claimed(ledger, busy=["https://busy.example/"]) == []
    assert len(await _claimed(ledger)) == 6


async def test_lists_have_pages_and_old_ones_are_forgotten(ledger: Ledger) -> None:
    await _ended(ledger, 5)
    seen, cursor = [], None
    while True:
        page = await ledger.deliveries("default", limit=2, cursor=cursor)
        seen += [webhook.created_at for webhook in page.items]
        if (cursor := page.next) is None:
            break
    assert seen == [AT + number for number in reversed(range(5))]
    assert (await ledger.deliveries("other")).items == []
    assert await _recorded(ledger, status=DeliveryStatus.FAILED) == []
    for asked in ({"cursor": "none"}, {"limit": 0}):
        with pytest.raises(Invalid):
            await ledger.deliveries("default", **asked)
    for webhook in await _claimed(ledger, limit=2):
        await ledger.settle_delivery(webhook, error="answered 410", again_in=None)
    assert await ledger.prune_deliveries(older_seconds=3600) == 0
    assert await ledger.prune_deliveries(older_seconds=-1) == 2
    assert len(await _recorded(ledger, status=DeliveryStatus.PENDING)) == 3


async def test_a_pipeline_tells_of_its_end_and_of_the_end_of_each_later_round(
    driver_of: MakeDriver, rehearsed: OpenRouterServer, receiver: Receiver
) -> None:
    driver = await driver_of(rehearsed, **webhook_settings(webhook_url=receiver.url, turn_limit=1))
    first = await driver.run(labels=("x",))
    assert first.board.status is Status.ORCHESTRATION_FAILED
    assert await deliver_due(driver.services) == 1
    await driver.carry_on(first.pipeline_id, guidance="try again")
    assert await deliver_due(driver.services) == 1
    assert await deliver_due(driver.services) == 0
    assert [seen.document["type"] for seen in receiver.seen] == ["pipeline.orchestration_failed"] * 2
    assert [seen.document["data"]["round"] for seen in receiver.seen] == [1, 2]
    assert len({seen.id for seen in receiver.seen}) == 2


async def test_the_agreed_text_is_told_by_its_title_to_the_pipelines_own_receiver(
    driver_of: MakeDriver, rehearsed: OpenRouterServer, receiver: Receiver
) -> None:
    driver = await driver_of(rehearsed, **webhook_settings(webhook_url="https://elsewhere.example/"))
    course = await driver.run(webhook=f"{receiver.url}?to=me")
    await deliver_due(driver.services)
    [seen] = receiver.seen
    consensus = course.board.consensus
    assert consensus
    assert seen.path == "/hooks?to=me"
    assert seen.document["data"]["consensus"]["title"] == consensus["title"]
    assert "text" not in seen.document["data"]["consensus"]
    assert seen.document["data"]["tokens"]["input"] > 0
