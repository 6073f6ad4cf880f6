"""The emergency stop: from its commit on nothing acts, whatever the worker was doing."""

import asyncio
import random
import sys
import time
from collections.abc import Sequence

import pytest

from tests.driving import Course, Driver, MakeDriver, shown
from tests.fixtures.book import until
from trilogue.entry import Draft, Entry, Kind
from trilogue.errors import Conflict, Fenced, IllegalTransition, NotFound
from trilogue.ledger import verify
from trilogue.ledger.opening import TENANT
from trilogue.models.rehearsal.script import rehearse
from trilogue.pipeline import Status
from trilogue.testing.openrouter import serving

LATEST_ACT = 1.0
"""Seconds after the stop until when a call that was on its way may last."""
STOPS = 50


async def _stopped_at(driver: Driver, number: int, delay: float) -> tuple[Course, float]:
    """Stop a pipeline `delay` seconds after its first call; how long its last call outlived the stop, in seconds."""
    objective = f"Stop number {number}"
    pipeline_id = await driver.spawn(objective)
    carrying = asyncio.create_task(driver.carry(pipeline_id))
    await until(lambda: any(shown(seen)["objective"] == objective for seen in driver.server.chats))
    await asyncio.sleep(delay)  # the random moment itself
    await driver.services.stop(pipeline_id, "a test")
    stopped = time.monotonic()
    with pytest.raises(Fenced):
        await asyncio.wait_for(carrying, 10)
    calls = [seen for seen in driver.server.chats if shown(seen)["objective"] == objective]
    await until(lambda: all(seen.ended is not None for seen in calls))
    return await driver.course(pipeline_id), max((seen.ended or 0.0) - stopped for seen in calls)


def _check_nothing_after_the_stop(entries: Sequence[Entry]) -> None:
    place = next(index for index, entry in enumerate(entries) if entry.kind is Kind.STOPPED)
    assert [entry.kind for entry in entries[place + 1 :]] == [Kind.CHECKPOINT]


async def test_fifty_stops_at_random_moments_leave_nothing_that_acts(
    driver_of: MakeDriver, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(20261122)
    async with serving(rehearse, latency=0.15) as server:
        driver = await driver_of(server, key="unused")
        stops = await asyncio.gather(*(_stopped_at(driver, n, chance.uniform(0, 0.5)) for n in range(STOPS)))
        for course, _ in stops:
            _check_nothing_after_the_stop(course.entries)
            assert course.board.status is Status.STOPPED
    latencies = sorted(outlived for _, outlived in stops)
    with capsys.disabled():
        figures = (
            f"p50 {latencies[STOPS // 2]:.3f} s, p90 {latencies[STOPS * 9 // 10]:.3f} s, max {latencies[-1]:.3f} s"
        )
        sys.stdout.write(f"\n{STOPS} stops, last call after the stop: {figures}\n")
    assert latencies[-1] < LATEST_ACT
    assert sum(outlived > 0 for outlived in latencies) >= STOPS // 2  # calls were really under way


async def test_a_stop_holds_before_the_worker_has_seen_it(driver_of: MakeDriver) -> None:
    async with serving(rehearse) as server:
        driver = await driver_of(server, key="unused")
        pipeline_id = await driver.spawn()
        too_late = [Draft(kind=Kind.GUIDANCE, body={"text": "too late"})]

        async def act_after_the_stop() -> None:
            async with driver.services.attempt(pipeline_id, flow_run_id=None) as attempt:
                await driver.services.stop(pipeline_id, "")
                await attempt.append(lambda _: too_late)

        with pytest.raises(Fenced, match="stopped"):
            await act_after_the_stop()
        assert (await driver.course(pipeline_id)).bodies(Kind.GUIDANCE) == []


async def test_of_two_stops_at_once_one_wins_and_an_ended_pipeline_cannot_be_stopped(driver_of: MakeDriver) -> None:
    async with serving(rehearse) as server:
        driver = await driver_of(server, key="unused")
        pipeline_id = await driver.spawn()
        outcomes = await asyncio.gather(
            *(driver.services.stop(pipeline_id, str(number)) for number in range(5)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes if outcome] == [IllegalTransition] * 4
        done = await driver.run()
        with pytest.raises(IllegalTransition, match="COMPLETED"):
            await driver.services.stop(done.pipeline_id, "")
        with pytest.raises(NotFound):
            await driver.services.stop("p-unknown", "")
        entries = await driver.services.ledger.entries(TENANT, pipeline_id)
        _check_nothing_after_the_stop(entries)


async def test_a_stopped_pipeline_is_resumed_only_with_a_reason_and_goes_on_to_its_end(driver_of: MakeDriver) -> None:
    async with serving(rehearse, latency=0.1) as server:
        driver = await driver_of(server, key="unused")
        pipeline_id = await driver.spawn()
        carrying = asyncio.create_task(driver.carry(pipeline_id))
        await until(lambda: len(server.chats) > 3)
        await driver.services.stop(pipeline_id, "a closer look")
        with pytest.raises(Fenced):
            await carrying
        before = await driver.course(pipeline_id)
        with pytest.raises(Conflict, match="reason"):
            await driver.services.resume(pipeline_id, " ")
        await driver.services.resume(pipeline_id, "looked at it")
        with pytest.raises(Conflict):
            await driver.services.resume(pipeline_id, "twice")
        done = await driver.carry(pipeline_id)
    assert done.board.status is Status.COMPLETED
    assert done.entries[: len(before.entries)] == before.entries
    finished = [body["turn"] for body in done.bodies(Kind.TURN_ENDED)]
    assert len(finished) == len(set(finished))
    assert verify(done.entries) is None
