"""A worker that wakes up after its lease was taken can do nothing any more, and ends by itself."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from redis.asyncio import Redis

from tests.driving import MakeDriver, asked
from tests.fixtures.book import until
from tests.fixtures.model_server import KEY
from tests.fixtures.prefect import PrefectServer
from tests.workers import FENCED_OFF, carrier, start, taking_up_elsewhere
from trilogue.agent import Role
from trilogue.ledger.opening import TENANT
from trilogue.live import keys
from trilogue.models.rehearsal.script import rehearse
from trilogue.pipeline import Phase, Status
from trilogue.testing.openrouter import OpenRouterServer, serving
from trilogue.testing.plans import Ok, Seen, Step

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

LEASE = 2.0


def _slowly(seen: Seen) -> Step:
    """The first answer of BETA in the negotiation comes piece by piece, long enough to be stopped in its middle."""
    slow = asked(seen, Role.BETA, Phase.ORCHESTRATE) and not _slowly_asked
    if slow:
        _slowly_asked.append(seen)
    return Ok(pause=0.05) if slow else Ok()


_slowly_asked: list[Seen] = []


@pytest.fixture
async def model() -> AsyncIterator[OpenRouterServer]:
    _slowly_asked.clear()
    async with serving(rehearse, key=KEY, plan=_slowly, latency=0.1) as server:
        yield server


@pytest.fixture
def environment(
    model: OpenRouterServer,
    tmp_path: Path,
    migrated_sqlite_url: str,
    redis_url: str,
    no_blocks: None,
    prefect_server: PrefectServer,
) -> dict[str, str]:
    """What a worker's process needs to find the test's servers."""
    return prefect_server.environment | {
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "TRILOGUE_HOME": str(tmp_path),
        "TRILOGUE_DATABASE_URL": migrated_sqlite_url,
        "REDIS_URL": redis_url,
        "OPENROUTER_BASE_URL": model.url,
        "OPENROUTER_API_KEY": KEY,
        "OPENROUTER_MODEL": "test/one",
        "TRILOGUE_LEASE_SECONDS": str(LEASE),
    }


async def test_a_worker_that_wakes_after_its_lease_was_taken_appends_and_posts_nothing_and_ends(
    environment: dict[str, str], model: OpenRouterServer, driver_of: MakeDriver, redis_url: str
) -> None:
    driver = await driver_of(model)
    ledger = driver.services.ledger
    pipeline_id = await driver.spawn()
    stale = start(carrier, environment, pipeline_id)
    assert stale.pid
    try:
        await until(lambda: bool(_slowly_asked), seconds=30)
        await asyncio.sleep(0.3)  # into the middle of the answer
        os.kill(stale.pid, signal.SIGSTOP)
        assert _slowly_asked[0].ended is None
        before = await ledger.get_pipeline(TENANT, pipeline_id)

        async def completed() -> bool:
            return (await ledger.get_pipeline(TENANT, pipeline_id)).status is Status.COMPLETED

        with taking_up_elsewhere(environment):
            await until(completed, seconds=40)
            await until(lambda: _ended_in_prefect(before.flow_run_id), seconds=20)
            await until(lambda: _slowly_asked[0].ended is not None)
            row = await ledger.get_pipeline(TENANT, pipeline_id)
            entries = await ledger.entries(TENANT, pipeline_id)
            calls = len(model.requests)
            board = await _board(redis_url, pipeline_id)
            assert board

            async with Redis.from_url(redis_url).pubsub() as said:
                await said.subscribe(keys.of_pipeline(TENANT, pipeline_id).channel)
                os.kill(stale.pid, signal.SIGCONT)
                await asyncio.to_thread(stale.join, 20)
                assert stale.exitcode == FENCED_OFF
                heard = [message async for message in _waiting(said)]
        assert await ledger.entries(TENANT, pipeline_id) == entries
        after = await ledger.get_pipeline(TENANT, pipeline_id)
        assert (after.attempt, after.head_hash, after.flow_run_id) == (2, row.head_hash, row.flow_run_id)
        assert len(model.requests) == calls
        assert await _board(redis_url, pipeline_id) == board
        assert heard == []
        assert await _ended_in_prefect(before.flow_run_id)
    finally:
        with suppress(ProcessLookupError):
            os.kill(stale.pid, signal.SIGCONT)
        stale.kill()


async def _waiting(said: Any) -> AsyncIterator[Any]:
    """The messages that have come so far."""
    while message := await said.get_message(ignore_subscribe_messages=True, timeout=0.5):
        if message["type"] == "message":
            yield message["data"]


async def _board(redis_url: str, pipeline_id: str) -> dict[str, Any]:
    """Every key of the pipeline in Redis, as Redis itself would save it."""
    async with Redis.from_url(redis_url) as redis:
        return {name: await redis.dump(name) for name in keys.of_pipeline(TENANT, pipeline_id).declared}


async def _ended_in_prefect(flow_run_id: str | None) -> bool:
    async with get_client() as client:
        run = await client.read_flow_run(UUID(str(flow_run_id)))
    return run.state is not None and run.state.is_final()
