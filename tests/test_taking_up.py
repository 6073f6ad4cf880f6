"""Orphans under a real Prefect server: who takes them up, what becomes of the dead worker's run, `maintenance`."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.states import Completed, Crashed, Pending, Running
from prefect.tasks import Task

from flows.maintenance import maintenance
from flows.pipeline import pipeline
from tasks.taking_up import TakenUp, take_up
from tests.fixtures.book import until
from tests.fixtures.prefect import PrefectServer, SetUp
from trilogue import clock
from trilogue.clock import SECOND
from trilogue.desk import local
from trilogue.entry import Draft, Kind
from trilogue.launch import serving
from trilogue.ledger import PipelineRow
from trilogue.ledger.opening import TENANT
from trilogue.pipeline import Status
from trilogue.services import Services
from trilogue.settings import load_settings
from trilogue.spec import PipelineSpec

_flow: Any = pipeline
KEY = "sk-or-v1-never-a-parameter"
LONG_AGO = 600


@pytest.fixture(autouse=True)
def installation(set_up: SetUp) -> None:
    """Only the rehearsal can be reached; every checkpoint but the last is soon too old."""
    set_up(
        TRILOGUE_REHEARSAL_LATENCY="0.02",
        OPENROUTER_BASE_URL="http://127.0.0.1:9/api/v1",
        OPENROUTER_API_KEY=KEY,
        TRILOGUE_CHECKPOINT_RETENTION="0.001",
    )


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    async with serving(load_settings()) as opened:
        yield opened


@pytest.fixture
async def client() -> AsyncIterator[PrefectClient]:
    async with get_client() as opened:
        yield opened


@pytest.fixture
async def deployment(client: PrefectClient) -> AsyncIterator[str]:
    """A deployment of the flow `pipeline` whose runs nobody carries out."""
    name = f"of-the-test-{uuid4().hex[:8]}"
    flow_id = await client.create_flow(_flow)
    created = await client.create_deployment(flow_id, name)
    yield f"pipeline/{name}"
    await client.delete_deployment(created)


async def orphan(services: Services, client: PrefectClient, *, lease: float = 0) -> PipelineRow:
    """A pipeline whose worker died in SPAWN, in the middle of a task run of its flow run."""
    run = await client.create_flow_run(_flow, parameters={"objective": "x"}, state=Running())
    beginning: Task[..., Any] = Task(fn=lambda: None, name="spawn")
    await client.create_task_run(beginning, flow_run_id=run.id, dynamic_key="0", state=Running())
    spec = PipelineSpec(objective="Choose a queue", mode="local")
    pipeline_id = await local(services).spawn(spec, may_rehearse=False)
    await services.ledger.claim(TENANT, pipeline_id, owner="dead", lease_seconds=lease, flow_run_id=str(run.id))
    return await services.ledger.get_pipeline(TENANT, pipeline_id)


async def task_runs(client: PrefectClient, flow_run_id: str | None) -> list[TaskRun]:
    ours = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(str(flow_run_id))]))
    return await client.read_task_runs(flow_run_filter=ours, limit=100)


async def runs_of(client: PrefectClient, pipeline_id: str) -> list[FlowRun]:
    return await client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[pipeline_id])))


async def state_of(client: PrefectClient, flow_run_id: str | None) -> State[Any]:
    state = (await client.read_flow_run(UUID(str(flow_run_id)))).state
    assert state is not None
    return state


async def test_where_there_is_no_deployment_this_process_carries_orphans_and_buries_the_dead_runs(
    services: Services, client: PrefectClient, prefect_server: PrefectServer
) -> None:
    dead = [await orphan(services, client) for _ in range(2)]
    taken = await take_up(services, _flow, deployment="pipeline/nowhere")
    assert set(taken.carried) == {row.pipeline_id for row in dead}
    for before in dead:
        row = await services.ledger.get_pipeline(TENANT, before.pipeline_id)
        assert (row.status, row.attempt) == (Status.COMPLETED, 2)
        old = await state_of(client, before.flow_run_id)
        assert old.is_crashed()
        ui = prefect_server.api_url.removesuffix("/api")
        assert f"{ui}/runs/flow-run/{row.flow_run_id}" in str(old.message)
        (task_run,) = await task_runs(client, before.flow_run_id)
        assert task_run.state_name == "Crashed"
        assert (await state_of(client, row.flow_run_id)).is_completed()
    assert await take_up(services, _flow, deployment=None) == TakenUp()


async def test_of_two_that_try_the_same_orphan_one_wins_and_the_other_ends_as_superseded(
    services: Services, client: PrefectClient
) -> None:
    row = await orphan(services, client)
    one, other = Services(settings=services.settings, ledger=services.ledger, live=services.live), services
    taken = await asyncio.gather(*(take_up(which, _flow, deployment=None) for which in (one, other)))
    assert sorted(len(each.carried) for each in taken) == [0, 1]
    assert (await services.ledger.get_pipeline(TENANT, row.pipeline_id)).status is Status.COMPLETED
    states = sorted(str(run.state_name) for run in await runs_of(client, row.pipeline_id))
    assert states == ["Completed", "Superseded"]
    assert [entry.attempt for entry in await services.ledger.entries(TENANT, row.pipeline_id)][-1] == 2


async def test_the_same_process_tries_an_orphan_once_at_a_time(services: Services, client: PrefectClient) -> None:
    row = await orphan(services, client)
    taken = await asyncio.gather(*(take_up(services, _flow, deployment=None) for _ in range(3)))
    assert sorted(len(each.carried) for each in taken) == [0, 0, 1]
    assert len(await runs_of(client, row.pipeline_id)) == 1


async def test_a_deployment_gets_one_run_an_orphan_and_another_one_when_that_died_before_it_had_the_lease(
    services: Services, client: PrefectClient, deployment: str
) -> None:
    row = await orphan(services, client)
    looks = await asyncio.gather(*(take_up(services, _flow, deployment=deployment) for _ in range(3)))
    assert looks[0] == TakenUp(started=(row.pipeline_id,))
    assert await take_up(services, _flow, deployment=deployment) == TakenUp()
    (run,) = await runs_of(client, row.pipeline_id)
    parameters = {"objective": "Choose a queue", "project": "default", "pipeline_id": row.pipeline_id}
    assert (run.parameters, run.parent_task_run_id) == (parameters, None)
    assert KEY not in run.model_dump_json()

    await client.set_flow_run_state(run.id, Pending(), force=True)
    assert await take_up(services, _flow, deployment=deployment) == TakenUp()
    await client.set_flow_run_state(run.id, Crashed(), force=True)
    assert await take_up(services, _flow, deployment=deployment) == TakenUp(started=(row.pipeline_id,))
    assert await take_up(services, _flow, deployment=deployment) == TakenUp()
    assert len(await runs_of(client, row.pipeline_id)) == 2


async def test_a_run_that_gave_its_lease_back_is_left_to_report_its_own_end(
    services: Services, client: PrefectClient
) -> None:
    row = await orphan(services, client, lease=60)
    await services.ledger.release(row.fence, owner="dead")
    carrying = asyncio.create_task(
        _flow(objective=row.objective, pipeline_id=row.pipeline_id, return_state=True),
    )

    async def completed() -> bool:
        return (await services.ledger.get_pipeline(TENANT, row.pipeline_id)).status is Status.COMPLETED

    await until(completed)
    assert (await state_of(client, row.flow_run_id)).is_running()
    (unfinished,) = await task_runs(client, row.flow_run_id)
    await client.set_task_run_state(unfinished.id, Completed(), force=True)
    await client.set_flow_run_state(UUID(str(row.flow_run_id)), Completed(name="Held"), force=True)
    assert (await carrying).is_completed()
    assert (await state_of(client, row.flow_run_id)).name == "Held"
    (finished,) = await task_runs(client, row.flow_run_id)
    assert finished.state_name == "Completed"


async def test_maintenance_ends_what_is_out_of_time_takes_up_orphans_and_says_what_it_did(
    services: Services, client: PrefectClient
) -> None:
    overdue, row = await _overdue(services, client), await orphan(services, client)
    told = await _maintained()
    assert re.fullmatch(
        r"1 ended at their deadline; 0 orphans given to pipeline/pipeline, 1 carried here; "
        r"\d checkpoints removed; 1 boards soon to expire; 1 anchors made",
        told,
    )
    assert (await services.ledger.get_pipeline(TENANT, row.pipeline_id)).status is Status.COMPLETED

    ended = await services.ledger.get_pipeline(TENANT, overdue.pipeline_id)
    assert (ended.status, ended.leased, ended.deadline_at) == (Status.TIMEOUT, False, overdue.deadline_at)
    kinds = [e.kind for e in await services.ledger.entries(TENANT, overdue.pipeline_id) if e.attempt == ended.attempt]
    assert Kind.TURN_BEGUN not in kinds
    assert (await state_of(client, overdue.flow_run_id)).is_crashed()

    assert (await _maintained()).startswith(
        "0 ended at their deadline; 0 orphans given to pipeline/pipeline, 0 carried"
    )
    assert [c.name for c in await services.ledger.checkpoints(TENANT, overdue.pipeline_id)] == ["report", "timeout"]


async def _maintained() -> str:
    """What a run of `maintenance` says at its end."""
    flow: Any = maintenance
    state: State[Any] = await flow(return_state=True)
    assert state.is_completed(), state
    return str(state.message)


async def _overdue(services: Services, client: PrefectClient) -> PipelineRow:
    """A pipeline whose worker died in a round that has been over for long."""
    spec = PipelineSpec(objective="Choose a queue", mode="local", auto_continue=False)
    pipeline_id = await local(services).spawn(spec, may_rehearse=False)
    await _flow(objective=spec.objective, pipeline_id=pipeline_id, return_state=True)
    run = await client.create_flow_run(_flow, parameters={"objective": "x"}, state=Running())
    claim = await services.ledger.claim(TENANT, pipeline_id, owner="dead", lease_seconds=0, flow_run_id=str(run.id))
    at = clock.now() - LONG_AGO * SECOND
    round_ = {
        "round": 1,
        "mode": "local",
        "rehearsal": True,
        "model": "rehearsal",
        "models": {},
        "timeout": 1.0,
        "deadline": at + SECOND,
        "reason": "",
    }
    begun = [
        Draft(kind=Kind.STATUS, body={"status": "ORCHESTRATING", "error": None}),
        Draft(kind=Kind.PHASE_STARTED, body={"phase": "ORCHESTRATE"}),
        Draft(kind=Kind.ROUND_STARTED, body=round_),
    ]
    await services.ledger.append(claim.fence, begun, at=at)
    return await services.ledger.get_pipeline(TENANT, pipeline_id)
