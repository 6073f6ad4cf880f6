"""Work whose pipeline was stopped ends wherever it is, as often as it takes, and nobody else's work with it."""

import asyncio
import contextlib
import time

import pytest

from tests.driving import Driver, MakeDriver
from tests.fixtures.book import until
from trilogue.desk import local
from trilogue.errors import Fenced
from trilogue.ledger.opening import TENANT
from trilogue.models.rehearsal.script import rehearse
from trilogue.spec import RoundSpec
from trilogue.testing.openrouter import serving

LATEST_ACT = 1.0
"""Seconds after a stop until when its work must have ended."""


async def test_work_that_swallows_its_cancellation_is_cancelled_until_it_ends(driver_of: MakeDriver) -> None:
    async with serving(rehearse) as server:
        driver = await driver_of(server, key="unused")

        async def deaf(*, ends_by_itself: bool) -> int:
            task = asyncio.current_task()
            assert task is not None
            with pytest.raises(Fenced, match="stopped"):
                await _swallow_a_cancellation(driver, ends_by_itself=ends_by_itself)
            return task.cancelling()

        outcomes = asyncio.gather(deaf(ends_by_itself=False), deaf(ends_by_itself=True))
        assert await asyncio.wait_for(outcomes, 4) == [0, 0]


async def _swallow_a_cancellation(driver: Driver, *, ends_by_itself: bool) -> None:
    """Work that goes on after its first cancellation, as Prefect's can."""
    pipeline_id = await driver.spawn()
    async with driver.services.attempt(TENANT, pipeline_id, flow_run_id=None):
        await local(driver.services).stop(pipeline_id, "")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if not ends_by_itself:
            await asyncio.Event().wait()


async def test_a_cancellation_by_somebody_else_is_none_of_a_stops(driver_of: MakeDriver) -> None:
    async with serving(rehearse, latency=10.0) as server:
        driver = await driver_of(server, key="unused")
        pipeline_id = await driver.spawn()
        stopped = asyncio.Event()

        async def carry() -> None:
            async with driver.services.attempt(TENANT, pipeline_id, flow_run_id=None):
                try:
                    await asyncio.Event().wait()
                finally:
                    stopped.set()
                    await asyncio.sleep(0.1)

        carrying = asyncio.create_task(carry())
        await until(lambda: _leased(driver, pipeline_id))
        await local(driver.services).stop(pipeline_id, "")
        await stopped.wait()
        carrying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await carrying


async def _leased(driver: Driver, pipeline_id: str) -> bool:
    return (await driver.services.ledger.get_pipeline(TENANT, pipeline_id)).leased


async def test_a_pipeline_resumed_beside_the_end_of_its_stopped_attempt_is_watched_as_before(
    driver_of: MakeDriver,
) -> None:
    async with serving(rehearse, latency=0.2) as server:
        driver = await driver_of(server, key="unused")
        pipeline_id = await driver.spawn()
        ended = asyncio.Event()

        async def slow_to_end() -> None:
            async with driver.services.attempt(TENANT, pipeline_id, flow_run_id=None):
                try:
                    await asyncio.Event().wait()
                finally:
                    await ended.wait()

        first = asyncio.create_task(slow_to_end())
        await until(lambda: _leased(driver, pipeline_id))
        await local(driver.services).stop(pipeline_id, "once")
        await local(driver.services).resume(pipeline_id, RoundSpec(reason="go on"))
        second = asyncio.create_task(driver.carry(pipeline_id))
        await until(lambda: len(server.chats) > 1)
        ended.set()
        with pytest.raises(Fenced):
            await first
        await local(driver.services).stop(pipeline_id, "twice")
        stopped = time.monotonic()
        with pytest.raises(Fenced, match="stopped"):
            await asyncio.wait_for(second, 5)
        assert time.monotonic() - stopped < LATEST_ACT
