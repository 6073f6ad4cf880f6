"""Governance holds while stores are away: a stop stops, the breaker breaks, leases come back, no commit is doubled."""

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest

from tests.driving import Course, Driver, MakeDriver, shown
from tests.fixtures.book import until
from tests.fixtures.postgres import OwnPostgres
from tests.fixtures.valkey import OwnServer
from tests.test_pipeline_stores import assert_nothing_lost, emptied, locked
from trilogue.board import Board
from trilogue.desk import local
from trilogue.entry import Draft, Kind
from trilogue.errors import Fenced, Unavailable
from trilogue.ledger import verify
from trilogue.ledger.opening import TENANT
from trilogue.pipeline import Status
from trilogue.testing.openrouter import OpenRouterServer
from trilogue.testing.plans import Hang, Ok, Seen, Step
from trilogue.testing.plans import Status as Answers

LATEST_ACT = 1.0
"""Seconds after the stop until when a call that was on its way may last."""
WAITS_FOR_A_LOCK = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def guidance(text: str) -> Callable[[Board], Sequence[Draft]]:
    return lambda _: [Draft(kind=Kind.GUIDANCE, body={"text": text})]


def check_stopped(course: Course) -> None:
    place = next(index for index, entry in enumerate(course.entries) if entry.kind is Kind.STOPPED)
    assert [entry.kind for entry in course.entries[place + 1 :]] == [Kind.CHECKPOINT]
    assert course.board.status is Status.STOPPED
    assert verify(course.entries) is None


async def stopped_after(driver: Driver, number: int, delay: float) -> float:
    """Carry a pipeline and stop it `delay` seconds after its first call; how long its last call outlived the stop."""
    objective = f"Stop number {number}"

    def calls() -> list[Seen]:
        return [seen for seen in driver.server.chats if shown(seen)["objective"] == objective]

    pipeline_id = await driver.spawn(objective)
    carrying = asyncio.create_task(driver.carry(pipeline_id))
    await until(lambda: bool(calls()))
    await asyncio.sleep(delay)  # the random moment itself
    await local(driver.services).stop(pipeline_id, "a test")
    stopped = time.monotonic()
    with pytest.raises(Fenced):
        await asyncio.wait_for(carrying, LATEST_ACT)
    await until(lambda: all(seen.ended is not None for seen in calls()))
    check_stopped(await driver.course(pipeline_id))
    return max((seen.ended or 0.0) - stopped for seen in calls())


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "lost", [OwnServer.freeze, pytest.param(OwnServer.kill, marks=SLOW), pytest.param(emptied, marks=SLOW)]
)
async def test_a_stop_stops_within_a_second_whatever_became_of_redis(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, valkey_server: OwnServer, lost: Callable[[OwnServer], None]
) -> None:
    chance = random.Random(20261122)
    rehearsed.latency = 0.6
    driver = await driver_of(rehearsed, live_url=valkey_server.url)
    stopping = [asyncio.create_task(stopped_after(driver, n, chance.uniform(0.2, 0.9))) for n in range(12)]
    await until(lambda: len(rehearsed.chats) >= 12)
    await asyncio.to_thread(lost, valkey_server)
    latencies = await asyncio.gather(*stopping)
    assert max(latencies) < LATEST_ACT
    assert any(outlived > 0 for outlived in latencies)  # calls were really under way


@pytest.mark.parametrize("lost", [OwnServer.kill, pytest.param(OwnServer.freeze, marks=SLOW)])
async def test_with_redis_away_the_breaker_goes_by_what_its_process_sees(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, valkey_server: OwnServer, lost: Callable[[OwnServer], None]
) -> None:
    down, open_for, pipelines = False, 0.3, 2

    def plan(seen: Seen) -> Step:
        return Answers(code=503) if down and seen.path == "/chat/completions" else Ok()

    rehearsed.plan, rehearsed.latency = plan, 0.05
    driver = await driver_of(rehearsed, live_url=valkey_server.url, breaker_seconds=open_for)
    carrying = [asyncio.create_task(driver.run(f"Objective {number}")) for number in range(pipelines)]
    await until(lambda: len(rehearsed.chats) >= 2 * pipelines)
    await asyncio.to_thread(lost, valkey_server)
    before = list(rehearsed.chats)
    down = True
    await until(lambda: all(seen.ended is not None for seen in before))

    def only_trials(count: int) -> bool:
        began = [seen.began for seen in rehearsed.chats[len(before) :]]
        return len(began) > count and all(later - earlier > 0.7 * open_for for earlier, later in pairwise(began[-3:]))

    opening = 5 + 2 * pipelines  # five open it, and each agent may have a call on its way
    await until(lambda: only_trials(5))
    assert len(rehearsed.chats) <= len(before) + opening + 3
    down = False
    for course in await asyncio.gather(*carrying):
        assert course.board.status is Status.COMPLETED
        assert course.bodies(Kind.HANDOFF) == []


async def test_a_stop_that_waits_for_sqlites_lock_takes_effect_as_soon_as_that_is_gone(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, migrated_sqlite_url: str
) -> None:
    rehearsed.latency = 0.1
    worker, person = await driver_of(rehearsed), await driver_of(rehearsed)
    pipeline_id = await worker.spawn()
    carrying = asyncio.create_task(worker.carry(pipeline_id))
    await until(lambda: len(rehearsed.chats) >= 3)
    async with locked(migrated_sqlite_url):
        stopping = asyncio.create_task(local(person.services).stop(pipeline_id, "a test"))
        await until(lambda: all(seen.ended is not None for seen in rehearsed.chats))  # answers wait for the lock too
        asked = len(rehearsed.chats)
        assert not stopping.done()
    async with asyncio.timeout(LATEST_ACT):
        await stopping
        with pytest.raises(Fenced):
            await carrying
    assert len(rehearsed.chats) <= asked + 2  # what was committed before the stop came to its turn
    check_stopped(await person.course(pipeline_id))


async def test_a_stop_is_refused_while_postgresql_is_away_and_holds_as_soon_as_it_is_back(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, own_postgres: OwnPostgres
) -> None:
    rehearsed.plan = lambda seen: Hang() if seen.number >= 2 and seen.path == "/chat/completions" else Ok()
    driver = await driver_of(rehearsed, ledger_url=own_postgres.url, call_timeout=60.0)
    pipeline_id = await driver.spawn()
    carrying = asyncio.create_task(driver.carry(pipeline_id))
    await until(lambda: len(rehearsed.chats) == 4)
    await asyncio.to_thread(own_postgres.kill)
    with pytest.raises(Unavailable):
        await local(driver.services).stop(pipeline_id, "too early")
    await asyncio.to_thread(own_postgres.start)
    await local(driver.services).stop(pipeline_id, "a test")
    with pytest.raises(Fenced):
        await asyncio.wait_for(carrying, LATEST_ACT)
    check_stopped(await driver.course(pipeline_id))


async def test_commits_that_postgresqls_restarts_break_off_are_made_once_and_in_order(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, own_postgres: OwnPostgres
) -> None:
    driver = await driver_of(rehearsed, ledger_url=own_postgres.url)
    pipelines = [await driver.spawn(f"Objective {number}") for number in range(8)]
    each, committed = 120, 0

    async def burst(pipeline_id: str) -> None:
        nonlocal committed
        async with driver.services.attempt(TENANT, pipeline_id, flow_run_id=None) as attempt:
            for number in range(each):
                await attempt.append(guidance(str(number)))
                committed += 1

    async def restarts() -> None:
        for share in (0.1, 0.4, 0.7):
            await until(lambda share=share: committed > share * each * len(pipelines))  # type: ignore[misc]
            await asyncio.to_thread(own_postgres.kill)
            await asyncio.to_thread(own_postgres.start)

    await asyncio.gather(restarts(), *map(burst, pipelines))
    for pipeline_id in pipelines:
        course = await driver.course(pipeline_id)
        assert [int(body["text"]) for body in course.bodies(Kind.GUIDANCE)] == list(range(each))
        assert verify(course.entries) is None


async def test_leases_are_renewed_again_after_a_restart_also_those_that_ran_out_meanwhile(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, own_postgres: OwnPostgres
) -> None:
    held = False
    rehearsed.plan = lambda seen: Hang(seconds=1.0) if held and seen.path == "/chat/completions" else Ok()
    driver = await driver_of(rehearsed, ledger_url=own_postgres.url, lease_seconds=0.6)
    pipeline_id = await driver.spawn()
    held = True
    running = asyncio.create_task(driver.carry(pipeline_id))
    await until(lambda: len(rehearsed.chats) == 2)
    await asyncio.to_thread(own_postgres.kill)
    await asyncio.sleep(0.7)  # longer than the lease
    await asyncio.to_thread(own_postgres.start)

    async def leased() -> bool:
        with suppress(Unavailable):  # the first question may meet a connection that broke
            return (await driver.services.ledger.get_pipeline(TENANT, pipeline_id)).leased
        return False

    await until(leased)
    held = False
    course = await running
    assert_nothing_lost(course, rehearsed)
    assert course.board.attempt == 1


async def test_who_lost_its_lease_during_a_restart_is_fenced_and_the_other_finishes(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, own_postgres: OwnPostgres
) -> None:
    rehearsed.latency = 0.2
    first, second = [await driver_of(rehearsed, ledger_url=own_postgres.url) for _ in range(2)]
    pipeline_id = await first.spawn()
    running = asyncio.create_task(first.carry(pipeline_id))
    await until(lambda: len(rehearsed.chats) >= 3)
    await asyncio.to_thread(own_postgres.kill)
    await asyncio.to_thread(own_postgres.start)
    with psycopg.connect(own_postgres.url, autocommit=True) as connection:
        connection.execute("UPDATE pipelines SET lease_until = 0")  # it ran out before its worker could renew it
    course = await second.carry(pipeline_id)
    with pytest.raises(Fenced):
        await running
    assert course.board.status is Status.COMPLETED
    assert verify(course.entries) is None
    attempts = [entry.attempt for entry in course.entries]
    assert attempts == sorted(attempts)
    begun, ended = ([body["turn"] for body in course.bodies(kind)] for kind in (Kind.TURN_BEGUN, Kind.TURN_ENDED))
    assert begun == sorted(ended) == list(range(1, len(begun) + 1))


class Wire:
    """Stands before PostgreSQL's socket. Told to, it cuts a client off at its COMMIT, which the server gets later."""

    def __init__(self, url: str, folder: Path) -> None:
        stem, _, place = url.partition("host=")
        self.url = f"{stem}host={folder}"
        self.socket = folder / ".s.PGSQL.5432"
        self.cut_next = False
        self.late = asyncio.Event()
        self._server = Path(place.partition("&")[0].replace("%2F", "/")) / ".s.PGSQL.5432"

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._server)
        back = asyncio.create_task(_pump(from_server, writer))
        with suppress(OSError, asyncio.CancelledError):
            while piece := await reader.read(65536):
                if self.cut_next and b"COMMIT\0" in piece:
                    self.cut_next = False
                    writer.transport.abort()
                    await self.late.wait()
                to_server.write(piece)
                await to_server.drain()
        back.cancel()
        to_server.close()
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="wire-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
async def wire(migrated_postgres_url: str, short_folder: Path) -> AsyncIterator[Wire]:
    between = Wire(migrated_postgres_url, short_folder)
    server = await asyncio.start_unix_server(between.carry, path=between.socket)
    yield between
    server.close()


async def test_a_commit_that_the_server_gets_late_is_waited_for_and_not_made_twice(
    rehearsed: OpenRouterServer, driver_of: MakeDriver, wire: Wire, migrated_postgres_url: str
) -> None:
    driver = await driver_of(rehearsed, ledger_url=wire.url)
    pipeline_id = await driver.spawn()
    async with driver.services.attempt(TENANT, pipeline_id, flow_run_id=None) as attempt:
        wire.cut_next = True
        appending = asyncio.create_task(attempt.append(guidance("once")))
        with psycopg.connect(migrated_postgres_url, autocommit=True) as connection:
            await until(lambda: connection.execute(WAITS_FOR_A_LOCK).fetchone() == (1,))
        wire.late.set()
        await appending
        await attempt.append(guidance("next"))
    course = await driver.course(pipeline_id)
    assert [body["text"] for body in course.bodies(Kind.GUIDANCE)] == ["once", "next"]
    assert verify(course.entries) is None
