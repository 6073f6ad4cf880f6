"""`kill -9` of a worker at any moment of a run: another one takes the pipeline up, and nothing is done twice."""

import asyncio
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, TaskRun

from tests.driving import Course, Driver, MakeDriver, shown
from tests.fixtures.book import until
from tests.fixtures.model_server import KEY
from tests.fixtures.prefect import PrefectServer
from tests.workers import carrier, start, taking_up_elsewhere
from trilogue.board import NOTHING
from trilogue.entry import Kind
from trilogue.ledger import PipelineRow, verify
from trilogue.ledger.opening import TENANT
from trilogue.models.rehearsal.script import rehearse
from trilogue.pipeline import Status
from trilogue.testing.openrouter import OpenRouterServer, serving
from trilogue.testing.plans import Ok, Seen, Step

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

SEED = 20261123
KILLS = 20
AT_ONCE = 4
LEASE = 3.0
LATEST_ENTRY = 26
"""Of some thirty that a run has: there must be something left to take up."""
BROKEN_OFF = {"lost", "cancelled"}
FAULTY = "whose BETA answers nonsense"


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill, and how the pipeline went on."""

    before: PipelineRow
    course: Course
    row: PipelineRow
    took: float
    """Seconds from the kill to the first entry of the attempt that took the pipeline up."""
    calls: int

    @property
    def repeated(self) -> int:
        """Calls that the server saw and that no finished turn accounts for."""
        finished = [body for body in self.course.bodies(Kind.TURN_ENDED) if body["outcome"] not in BROKEN_OFF]
        return self.calls - sum(body["calls"] for body in finished)


def _plan(seen: Seen) -> Step:
    if seen.path != "/chat/completions":
        return Ok()
    situation = shown(seen)
    nonsense = FAULTY in situation["objective"] and (situation["you"], situation["phase"]) == ("BETA", "ORCHESTRATE")
    return Ok(text="I would rather not say.") if nonsense else Ok()


@pytest.fixture
async def model() -> AsyncIterator[OpenRouterServer]:
    async with serving(rehearse, key=KEY, plan=_plan, latency=0.12) as server:
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


async def test_twenty_kills_at_random_moments_lose_nothing_and_repeat_only_what_was_not_finished(
    environment: dict[str, str], model: OpenRouterServer, driver_of: MakeDriver, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    moments = [(chance.randint(2, LATEST_ENTRY), chance.uniform(0, 0.15)) for _ in range(KILLS)]
    driver = await driver_of(model)
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> Kill:
        async with room:
            return await _killed(driver, environment, number, *moments[number])

    with taking_up_elsewhere(environment):
        kills = await asyncio.gather(*map(one, range(KILLS)))
        for kill in kills:
            _check_the_ledger(kill)
            await _check_prefect(kill, environment["PREFECT_API_URL"].removesuffix("/api"))
    took, repeated = [kill.took for kill in kills], [kill.repeated for kill in kills]
    with capsys.disabled():
        sys.stdout.write(
            f"\n{KILLS} kills (seed {SEED}, lease {LEASE} s): taken up after p50 {statistics.median(took):.2f} s, "
            f"max {max(took):.2f} s; repeated calls a kill: mean {statistics.mean(repeated):.2f}, max {max(repeated)}\n"
        )
    assert max(took) < LEASE + 10
    assert sum(repeated) >= KILLS // 4  # calls were really under way
    assert {kill.before.status for kill in kills} >= {Status.RUNNING, Status.ORCHESTRATING}
    assert any(kill.course.bodies(Kind.HANDOFF) for kill in kills)


async def _killed(driver: Driver, environment: dict[str, str], number: int, entries: int, more: float) -> Kill:
    """Kill a worker `more` seconds after it has made its pipeline so many entries, and wait for the pipeline's end."""
    objective = f"Objective {number}" + (f" {FAULTY}" if number % 4 == 3 else "")
    pipeline_id = await driver.spawn(objective)
    key = (TENANT, pipeline_id)
    ledger = driver.services.ledger
    worker = start(carrier, environment, pipeline_id)

    async def far_enough() -> bool:
        return (await ledger.heads({key}))[key].head_seq >= entries

    await until(far_enough, seconds=30)
    await asyncio.sleep(more)  # the random moment itself
    worker.kill()
    killed = time.time()
    await asyncio.to_thread(worker.join, 10)
    before = await ledger.get_pipeline(*key)
    assert not before.status.ended, f"{objective}: it ended before the kill: {entries} entries, {more:.2f} s"

    async def ended() -> bool:
        return (await ledger.get_pipeline(*key)).status.ended

    await until(ended, seconds=60)
    course, row = await driver.course(pipeline_id), await ledger.get_pipeline(*key)
    first = next(entry.at for entry in course.entries if entry.attempt > before.attempt)
    calls = [seen for seen in driver.server.chats if shown(seen)["objective"] == objective]
    return Kill(before=before, course=course, row=row, took=first / 1e6 - killed, calls=len(calls))


def _check_the_ledger(kill: Kill) -> None:
    course, what = kill.course, kill.row.objective
    assert kill.row.status is Status.COMPLETED, f"{what}: {kill.row.status} {kill.row.error}"
    assert (kill.before.attempt, kill.row.attempt) == (1, 2), what
    assert [entry.seq for entry in course.entries] == list(range(1, len(course.entries) + 1)), what
    assert verify(course.entries) is None, what

    ended = course.bodies(Kind.TURN_ENDED)
    turns = Counter(body["turn"] for body in ended)
    assert turns == Counter(body["turn"] for body in course.bodies(Kind.TURN_BEGUN)), what
    assert set(turns.values()) == {1}, what
    lost = [body for body in ended if body["outcome"] in BROKEN_OFF]
    assert len(lost) <= 2, what
    assert all(body["settled"] == {**body["reserved"], "estimated": True} for body in lost), what
    assert course.board.spending_in_all().reserved == NOTHING, what
    # A turn that its repair turn did not mend has two calls.
    assert 0 <= kill.repeated <= len(lost) * (2 if FAULTY in what else 1), what
    researched = Counter(body["agent_id"] for body in ended if (body["phase"], body["outcome"]) == ("RUN", "acted"))
    assert researched == {"alpha-1": 1, "beta-1": 1}, what

    handoffs = [body["agent_id"] for body in course.bodies(Kind.HANDOFF)]
    assert handoffs == (["beta-1"] if FAULTY in what else []), what
    (round_,) = course.bodies(Kind.ROUND_STARTED)
    assert kill.row.deadline_at == round_["deadline"], what
    assert course.entries[-1].at < round_["deadline"], what
    for kind in (Kind.REPORT, Kind.CONSENSUS, Kind.PIPELINE_SPAWNED):
        assert len(course.bodies(kind)) == 1, what


async def _check_prefect(kill: Kill, ui: str) -> None:
    """The dead worker's flow run is Crashed, with a link to the one that went on; nothing of either is left open."""
    assert kill.before.flow_run_id
    old = await _flow_run(kill.before.flow_run_id)
    assert old.state is not None
    assert old.state.is_crashed(), old.state
    assert f"{ui}/runs/flow-run/{kill.row.flow_run_id}" in str(old.state.message)

    async def all_ended() -> bool:
        runs = [run for which in (kill.before, kill.row) for run in await _task_runs(str(which.flow_run_id))]
        return all(run.state is not None and run.state.is_final() for run in runs)

    async def completed() -> bool:
        return (await _flow_run(str(kill.row.flow_run_id))).state_name == "Completed"

    await until(completed, seconds=15)
    await until(all_ended, seconds=15)


async def _flow_run(flow_run_id: str) -> FlowRun:
    async with get_client() as client:
        return await client.read_flow_run(UUID(flow_run_id))


async def _task_runs(flow_run_id: str) -> list[TaskRun]:
    async with get_client() as client:
        ours = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
        return await client.read_task_runs(flow_run_filter=ours, limit=100)
