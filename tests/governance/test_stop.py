"""The emergency stop: from its commit on nothing acts, whatever the worker was doing."""

import asyncio
import random
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from queue import Queue
from typing import Any

import pytest

from tests.driving import Course, Driver, MakeDriver, shown
from tests.fixtures.book import until
from tests.fixtures.valkey import OwnServer
from trilogue.desk import local
from trilogue.entry import PERSON, SYSTEM, Draft, Entry, Kind
from trilogue.errors import Conflict, Fenced, IllegalTransition, NotFound
from trilogue.ledger import Ledger, verify
from trilogue.ledger.identities import AT_THE_TERMINAL
from trilogue.ledger.opening import TENANT
from trilogue.ledger.stopping import stop
from trilogue.live import Notice, Signal
from trilogue.models.rehearsal.script import rehearse
from trilogue.pipeline import Status
from trilogue.spec import RoundSpec
from trilogue.testing.openrouter import OpenRouterServer, serving
from trilogue.testing.plans import Seen

LATEST_ACT = 1.0
"""Seconds after the stop until when a call that was on its way may last."""
STOPS = 50


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """A stopped pipeline, and how many seconds after the stop's commit the last of its agents' acts was seen."""

    course: Course
    call: float
    post: float


async def _stopped_at(driver: Driver, number: int, delay: float, posts: Mapping[str, float]) -> Stopped:
    """Stop a pipeline `delay` seconds after its first call. `posts`: when each pipeline was last posted for."""
    objective = f"Stop number {number}"
    pipeline_id = await driver.spawn(objective)
    carrying = asyncio.create_task(driver.carry(pipeline_id))
    await until(lambda: bool(_calls_for(driver, objective)))
    await asyncio.sleep(delay)  # the random moment itself
    await local(driver.services).stop(pipeline_id, "a test")
    stopped = time.monotonic()
    with pytest.raises(Fenced, match="stopped"):
        await asyncio.wait_for(carrying, 10)
    calls = _calls_for(driver, objective)
    await until(lambda: all(seen.ended is not None for seen in calls))
    await driver.services.live.poster.flush(timeout=5.0)
    return Stopped(
        course=await driver.course(pipeline_id),
        call=max(seen.ended or 0.0 for seen in calls) - stopped,
        post=posts.get(pipeline_id, stopped) - stopped,
    )


def _calls_for(driver: Driver, objective: str) -> list[Seen]:
    return [seen for seen in driver.server.chats if shown(seen)["objective"] == objective]


@asynccontextmanager
async def _posts_seen(driver: Driver) -> AsyncIterator[Mapping[str, float]]:
    """When the bus last brought something of each pipeline's agents: an entry, or text of a running turn."""
    seen: dict[str, float] = {}

    async def listen() -> None:
        async with driver.services.live.subscribe(TENANT) as notices:
            async for notice in notices:
                assert notice is not Signal.LAGGED
                if isinstance(notice, Notice) and notice.actor not in {PERSON, SYSTEM}:
                    seen[notice.pipeline_id] = time.monotonic()

    listening = asyncio.create_task(listen())
    try:
        yield seen
    finally:
        assert not listening.done(), listening.exception()
        listening.cancel()


def _check_nothing_after_the_stop(entries: Sequence[Entry]) -> None:
    place = next(index for index, entry in enumerate(entries) if entry.kind is Kind.STOPPED)
    assert [entry.kind for entry in entries[place + 1 :]] == [Kind.CHECKPOINT]


async def test_fifty_stops_at_random_moments_leave_nothing_that_acts(
    driver_of: MakeDriver, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(20261122)
    async with serving(rehearse, latency=0.15) as server:
        driver = await driver_of(server, key="unused")
        async with _posts_seen(driver) as posts:
            stops = await asyncio.gather(*(_stopped_at(driver, n, chance.uniform(0, 0.5), posts) for n in range(STOPS)))
            assert len(posts) == STOPS
        for stop in stops:
            _check_nothing_after_the_stop(stop.course.entries)
            assert stop.course.board.status is Status.STOPPED
    calls, last_posts = sorted(stop.call for stop in stops), sorted(stop.post for stop in stops)
    with capsys.disabled():
        sys.stdout.write(f"\n{STOPS} stops, last call after the stop: {_figures(calls)}; last post: ")
        sys.stdout.write(f"{_figures(last_posts)}; entries after it: none\n")
    assert max(calls[-1], last_posts[-1]) < LATEST_ACT
    assert sum(outlived > 0 for outlived in calls) >= STOPS // 2  # calls were really under way


def _figures(latencies: Sequence[float]) -> str:
    p50, p99 = (statistics.quantiles(latencies, n=100, method="inclusive")[place] for place in (49, 98))
    return f"p50 {p50:.3f} s, p99 {p99:.3f} s, max {latencies[-1]:.3f} s"


async def test_a_stop_holds_with_redis_gone(driver_of: MakeDriver, valkey_server: OwnServer) -> None:
    async with serving(rehearse, latency=0.15) as server:
        driver = await driver_of(server, key="unused", live_url=valkey_server.url)
        stopping = [asyncio.create_task(_stopped_at(driver, n, 0.2 + n / 10, {})) for n in range(3)]
        await until(lambda: len(server.chats) >= 6)
        await asyncio.to_thread(valkey_server.kill)
        for stop in await asyncio.gather(*stopping):
            _check_nothing_after_the_stop(stop.course.entries)
            assert stop.call < LATEST_ACT


async def test_a_hung_worker_can_record_nothing_after_the_stop(driver_of: MakeDriver, migrated_sqlite_url: str) -> None:
    """The answers are there when it wakes, and it commits before it has looked whether it still may."""
    with _serving_aside(latency=0.5) as server:
        driver = await driver_of(server, key="unused")
        pipeline_id = await driver.spawn()
        carrying = asyncio.create_task(driver.carry(pipeline_id))
        await until(lambda: len(server.chats) == 2)
        before = (await driver.course(pipeline_id)).entries
        hanging = threading.Event()
        stopping = asyncio.create_task(asyncio.to_thread(_stop_from_outside, migrated_sqlite_url, pipeline_id, hanging))
        await asyncio.sleep(0)
        hanging.set()
        time.sleep(1.5)  # noqa: ASYNC251 - the hang itself
        with pytest.raises(Fenced, match="stopped"):
            await asyncio.wait_for(carrying, LATEST_ACT)
        await stopping
        course = await driver.course(pipeline_id)
        assert all(seen.ended is not None and not seen.gone for seen in server.chats), "both were answered in full"
        assert len(server.chats) == 2
    assert course.entries[: len(before)] == before
    assert [entry.kind for entry in course.entries[len(before) :]] == [Kind.STATUS, Kind.STOPPED, Kind.CHECKPOINT]


def _stop_from_outside(ledger_url: str, pipeline_id: str, when: threading.Event) -> None:
    async def stopped() -> None:
        ledger = await Ledger.open(ledger_url, migrate=False)
        try:
            assert when.wait(5)
            await stop(ledger, TENANT, pipeline_id, "it hangs", by=AT_THE_TERMINAL)
        finally:
            await ledger.close()

    asyncio.run(stopped())


@contextmanager
def _serving_aside(**options: Any) -> Iterator[OpenRouterServer]:
    """A model server in a thread of its own: it answers while this event loop hangs."""
    begun: Queue[tuple[OpenRouterServer, Callable[[], object]]] = Queue()

    async def serve() -> None:
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        async with serving(rehearse, **options) as server:
            begun.put((server, lambda: loop.call_soon_threadsafe(over.set)))
            await over.wait()

    with ThreadPoolExecutor(1) as aside:
        done = aside.submit(asyncio.run, serve())
        server, end = begun.get(timeout=5)
        try:
            yield server
        finally:
            end()
            done.result(timeout=5)


async def test_a_stop_holds_before_the_worker_has_seen_it(driver_of: MakeDriver) -> None:
    async with serving(rehearse) as server:
        driver = await driver_of(server, key="unused")
        pipeline_id = await driver.spawn()
        too_late = [Draft(kind=Kind.GUIDANCE, body={"text": "too late"})]

        async def act_after_the_stop() -> None:
            async with driver.services.attempt(TENANT, pipeline_id, flow_run_id=None) as attempt:
                await local(driver.services).stop(pipeline_id, "")
                await attempt.append(lambda _: too_late)

        with pytest.raises(Fenced, match="stopped"):
            await act_after_the_stop()
        assert (await driver.course(pipeline_id)).bodies(Kind.GUIDANCE) == []


async def test_of_two_stops_at_once_one_wins_and_an_ended_pipeline_cannot_be_stopped(driver_of: MakeDriver) -> None:
    async with serving(rehearse) as server:
        driver = await driver_of(server, key="unused")
        pipeline_id = await driver.spawn()
        outcomes = await asyncio.gather(
            *(local(driver.services).stop(pipeline_id, str(number)) for number in range(5)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes if outcome] == [IllegalTransition] * 4
        done = await driver.run()
        with pytest.raises(IllegalTransition, match="COMPLETED"):
            await local(driver.services).stop(done.pipeline_id, "")
        with pytest.raises(NotFound):
            await local(driver.services).stop("p-unknown", "")
        entries = await driver.services.ledger.entries(TENANT, pipeline_id)
        _check_nothing_after_the_stop(entries)


async def test_a_stopped_pipeline_is_resumed_only_with_a_reason_and_goes_on_to_its_end(driver_of: MakeDriver) -> None:
    async with serving(rehearse, latency=0.1) as server:
        driver = await driver_of(server, key="unused")
        pipeline_id = await driver.spawn()
        carrying = asyncio.create_task(driver.carry(pipeline_id))
        await until(lambda: len(server.chats) > 3)
        await local(driver.services).stop(pipeline_id, "a closer look")
        with pytest.raises(Fenced):
            await carrying
        before = await driver.course(pipeline_id)
        with pytest.raises(Conflict, match="reason"):
            await local(driver.services).resume(pipeline_id, RoundSpec(reason=" "))
        await local(driver.services).resume(pipeline_id, RoundSpec(reason="looked at it"))
        with pytest.raises(Conflict):
            await local(driver.services).resume(pipeline_id, RoundSpec(reason="twice"))
        done = await driver.carry(pipeline_id)
    assert done.board.status is Status.COMPLETED
    assert done.entries[: len(before.entries)] == before.entries
    finished = [body["turn"] for body in done.bodies(Kind.TURN_ENDED)]
    assert len(finished) == len(set(finished))
    assert verify(done.entries) is None
