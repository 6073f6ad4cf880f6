"""Warm workers as processes: they share what waits, a killed one loses nothing, and one that is told to end drains."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from uuid import UUID

import pytest
from prefect import get_client

from tests.driving import Driver, MakeDriver
from tests.fixtures.book import until
from tests.fixtures.model_server import KEY
from tests.fixtures.prefect import PrefectServer
from tests.workers import start, warm
from trilogue.desk import local
from trilogue.entry import Kind
from trilogue.ledger import PipelineRow, verify
from trilogue.ledger.opening import TENANT
from trilogue.models.rehearsal.script import rehearse
from trilogue.pipeline import Status
from trilogue.spec import checked_spec
from trilogue.testing.openrouter import OpenRouterServer, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

LEASE = 60.0
"""Longer than any of these tests may take: what is taken up at once was let go, not found."""
SHORT_LEASE = 3.0
PATIENCE = 120.0


@pytest.fixture
async def model() -> AsyncIterator[OpenRouterServer]:
    async with serving(rehearse, key=KEY, latency=0.05) as server:
        yield server


@pytest.fixture
def environment(
    model: OpenRouterServer, tmp_path: Path, redis_url: str, no_blocks: None, prefect_server: PrefectServer
) -> dict[str, str]:
    """What a worker's process needs to find the test's servers; the ledger is still to be named."""
    return prefect_server.environment | {
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "TRILOGUE_HOME": str(tmp_path),
        "REDIS_URL": redis_url,
        "OPENROUTER_BASE_URL": model.url,
        "OPENROUTER_API_KEY": KEY,
        "OPENROUTER_MODEL": "test/one",
        "TRILOGUE_LEASE_SECONDS": str(LEASE),
    }


@contextmanager
def workers(
    environment: dict[str, str], *, number: int, concurrency: int, grace: float
) -> Iterator[list[ForkServerProcess]]:
    """Warm workers; whatever of them is left at the end is killed."""
    started = [start(warm, environment, str(concurrency), str(grace)) for _ in range(number)]
    try:
        yield started
    finally:
        for worker in started:
            worker.kill()
            worker.join(10)


async def spawned(driver: Driver, number: int) -> list[str]:
    specs = [checked_spec(objective=f"Design a caching strategy, number {each}") for each in range(number)]
    return await asyncio.gather(
        *(local(driver.services).spawn(spec, may_rehearse=False, queued=True) for spec in specs)
    )


async def rows_of(driver: Driver, pipeline_ids: list[str]) -> list[PipelineRow]:
    return [await driver.services.ledger.get_pipeline(TENANT, each) for each in pipeline_ids]


async def all_completed(driver: Driver, pipeline_ids: list[str]) -> None:
    async def ended() -> bool:
        return all(row.status.ended for row in await rows_of(driver, pipeline_ids))

    await until(ended, PATIENCE)
    for pipeline_id in pipeline_ids:
        course = await driver.course(pipeline_id)
        assert course.board.status is Status.COMPLETED, course.board.error
        assert verify(course.entries) is None
        assert len(course.bodies(Kind.CONSENSUS)) == 1
        turns = Counter(body["turn"] for body in course.bodies(Kind.TURN_ENDED))
        assert turns == Counter(body["turn"] for body in course.bodies(Kind.TURN_BEGUN))
        assert set(turns.values()) == {1}


async def at_work(driver: Driver, pipeline_ids: list[str], number: int) -> None:
    """Wait until so many pipelines are in the middle of a turn."""

    async def under_way() -> bool:
        courses = [await driver.course(each) for each in pipeline_ids]
        return sum(bool(course.bodies(Kind.TURN_BEGUN)) for course in courses) >= number

    await until(under_way, PATIENCE)


def told(process: ForkServerProcess, sign: signal.Signals) -> None:
    assert process.pid
    os.kill(process.pid, sign)


async def test_sixteen_at_once_on_sqlite_all_complete(
    environment: dict[str, str], model: OpenRouterServer, driver_of: MakeDriver, migrated_sqlite_url: str
) -> None:
    driver = await driver_of(model, ledger_url=migrated_sqlite_url)
    pipelines = await spawned(driver, 16)
    with workers(environment | {"TRILOGUE_DATABASE_URL": migrated_sqlite_url}, number=1, concurrency=16, grace=0):
        await all_completed(driver, pipelines)
    assert {row.attempt for row in await rows_of(driver, pipelines)} == {1}


async def test_of_two_workers_with_sixty_four_on_postgres_one_is_killed_and_the_other_finishes_all(
    environment: dict[str, str], model: OpenRouterServer, driver_of: MakeDriver, migrated_postgres_url: str
) -> None:
    driver = await driver_of(model, ledger_url=migrated_postgres_url)
    pipelines = await spawned(driver, 64)
    ours = {"TRILOGUE_DATABASE_URL": migrated_postgres_url, "TRILOGUE_LEASE_SECONDS": str(SHORT_LEASE)}
    with workers(environment | ours, number=2, concurrency=8, grace=0) as (one, _):

        async def shared() -> bool:
            owners = {row.lease_owner for row in await rows_of(driver, pipelines) if row.lease_owner}
            return len(owners) == 2

        await until(shared, PATIENCE)
        one.kill()
        await all_completed(driver, pipelines)
    attempts = Counter(row.attempt for row in await rows_of(driver, pipelines))
    assert set(attempts) == {1, 2}
    assert attempts[2] <= 8


async def test_sigterm_lets_what_runs_end_within_the_grace_and_takes_nothing_new(
    environment: dict[str, str], model: OpenRouterServer, driver_of: MakeDriver, migrated_sqlite_url: str
) -> None:
    driver = await driver_of(model, ledger_url=migrated_sqlite_url)
    pipelines = await spawned(driver, 3)
    ours = {"TRILOGUE_DATABASE_URL": migrated_sqlite_url}
    with workers(environment | ours, number=1, concurrency=2, grace=PATIENCE) as (worker,):
        await at_work(driver, pipelines, 2)
        told(worker, signal.SIGTERM)
        await asyncio.to_thread(worker.join, PATIENCE)
        assert worker.exitcode == 0
    statuses = Counter(row.status for row in await rows_of(driver, pipelines))
    assert statuses[Status.COMPLETED] >= 2
    waiting = [row for row in await rows_of(driver, pipelines) if row.status is not Status.COMPLETED]
    assert [row.status for row in waiting] in ([], [Status.SPAWNED])


@pytest.mark.parametrize(
    "signals",
    [(signal.SIGTERM,), (signal.SIGTERM, signal.SIGINT)],
    ids=["after the grace", "at a second signal"],
)
async def test_what_a_draining_worker_lets_go_is_taken_up_at_once_and_its_flow_runs_end(
    environment: dict[str, str],
    model: OpenRouterServer,
    driver_of: MakeDriver,
    migrated_sqlite_url: str,
    signals: Sequence[signal.Signals],
    capsys: pytest.CaptureFixture[str],
) -> None:
    driver = await driver_of(model, ledger_url=migrated_sqlite_url)
    pipelines = await spawned(driver, 3)
    model.latency = 2.0
    ours = environment | {"TRILOGUE_DATABASE_URL": migrated_sqlite_url}
    grace = 0.2 if len(signals) == 1 else PATIENCE
    with workers(ours, number=1, concurrency=3, grace=grace) as (draining,):
        await at_work(driver, pipelines, 3)
        before = await rows_of(driver, pipelines)
        with workers(ours, number=1, concurrency=3, grace=0):
            for sign in signals:
                told(draining, sign)
            asked = time.time()
            await asyncio.to_thread(draining.join, PATIENCE)
            gone = time.time() - asked
            assert draining.exitcode == 0
            model.latency = 0.05
            await all_completed(driver, pipelines)
    courses = [await driver.course(each) for each in pipelines]
    taken = [next(entry.at for entry in course.entries if entry.attempt == 2) / 1e6 - asked for course in courses]
    with capsys.disabled():
        sys.stdout.write(f"\ndrained in {gone:.2f} s; taken up after {', '.join(f'{each:.2f}' for each in taken)} s\n")
    assert max(taken) < 10
    async with get_client() as client:
        for row in before:
            former = await client.read_flow_run(UUID(str(row.flow_run_id)))
            assert former.state
            assert former.state.is_final(), former.state
