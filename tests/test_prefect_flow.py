"""The flows under a real Prefect server, in this process: what their runs and task runs are called and end as."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort
from prefect.flow_engine import run_flow_async
from prefect.states import AwaitingRetry, Cancelled, Cancelling

from flows.continuation import continue_pipeline
from flows.pipeline import pipeline
from tests.fixtures.book import until
from tests.fixtures.prefect import SetUp
from trilogue.desk import local
from trilogue.errors import Conflict
from trilogue.launch import carry, serving
from trilogue.ledger import Ledger
from trilogue.ledger.opening import TENANT, open_ledger
from trilogue.pipeline import Status, pipeline_id_for
from trilogue.services import Services
from trilogue.settings import load_settings
from trilogue.spec import PipelineSpec

_pipeline: Any = pipeline
ONE_ROUND = ["spawn", "run-alpha", "run-beta", "report", "orchestrate", "negotiate-alpha", "negotiate-beta", "complete"]
KEY = "sk-or-v1-never-a-parameter"
STOPPED_WITHIN = 3.0
"""Seconds from the cancellation in Prefect until nothing acts any more (DESIGN section 6)."""


@pytest.fixture(autouse=True)
def installation(set_up: SetUp) -> None:
    """An OpenRouter that cannot be reached."""
    set_up(
        TRILOGUE_REHEARSAL_LATENCY="0.05",
        OPENROUTER_BASE_URL="http://127.0.0.1:9/api/v1",
        OPENROUTER_API_KEY=KEY,
    )


@asynccontextmanager
async def opened() -> AsyncIterator[Ledger]:
    ledger = await open_ledger(load_settings())
    try:
        yield ledger
    finally:
        await ledger.close()


async def kinds(pipeline_id: str) -> Counter[str]:
    async with opened() as ledger:
        return Counter(entry.kind.value for entry in await ledger.entries(TENANT, pipeline_id))


async def settled(flow_run_id: UUID | None, count: int) -> list[TaskRun]:
    """The run's task runs once `count` of them are recorded and at their end; Prefect records them by events."""
    found: list[TaskRun] = []

    async def all_ended() -> bool:
        nonlocal found
        assert flow_run_id is not None
        ours = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
        found = await client.read_task_runs(flow_run_filter=ours, sort=TaskRunSort.EXPECTED_START_TIME_ASC, limit=50)
        return len(found) >= count and all(run.state is not None and run.state.is_final() for run in found)

    async with get_client() as client:
        await until(all_ended, seconds=20)
    return found


async def flow_run_named(name: str) -> FlowRun:
    async with get_client() as client:
        ours = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
        found = await client.read_flow_runs(flow_run_filter=ours, sort=FlowRunSort.START_TIME_ASC, limit=50)
    assert len(found) == 1
    return found[0]


def run_id(state: State[Any]) -> UUID:
    """The flow run that a state is of."""
    assert state.state_details.flow_run_id is not None
    return state.state_details.flow_run_id


async def running(services: Services, pipeline_id: str) -> None:
    """Wait until the pipeline's agents have begun their turns."""

    async def begun() -> bool:
        return len((await local(services).board(pipeline_id)).open_turns) == 2

    await until(begun)


async def test_the_installed_server_takes_the_nulls_that_its_own_client_sends() -> None:
    async with get_client() as client:  # with a FastAPI that is too new it answers 422, and `prefect deploy` fails
        assert isinstance(await client.read_flow_runs(limit=None, sort=None), list)


async def test_a_run_is_named_after_its_pipeline_and_shows_every_phase_and_agent_side_by_side() -> None:
    state = await pipeline(objective="Choose a queue", mode="local", return_state=True)
    assert state.is_completed()
    pipeline_id = pipeline_id_for(str(run_id(state)))
    async with opened() as ledger:
        row = await ledger.get_pipeline(TENANT, pipeline_id)
        assert (row.status, row.leased, row.attempt) == (Status.COMPLETED, False, 1)
    flow_run = await flow_run_named(pipeline_id)
    assert flow_run.id == run_id(state)
    assert KEY not in flow_run.model_dump_json()
    tasks = await settled(flow_run.id, len(ONE_ROUND))
    assert sorted(task.name for task in tasks) == sorted(ONE_ROUND)
    assert {task.state_name for task in tasks} == {"Completed"}
    assert not any(task.tags for task in tasks)
    by_name = {task.name: task for task in tasks}
    for part in ("run", "negotiate"):
        alpha, beta = by_name[f"{part}-alpha"], by_name[f"{part}-beta"]
        assert alpha.start_time
        assert beta.start_time
        assert alpha.end_time
        assert beta.end_time
        assert max(alpha.start_time, beta.start_time) < min(alpha.end_time, beta.end_time), part


@pytest.mark.parametrize("served_at", ["http://127.0.0.1:3000", ""])
async def test_a_run_leads_back_to_the_pipelines_page_where_one_is_served(
    monkeypatch: pytest.MonkeyPatch, served_at: str
) -> None:
    monkeypatch.setenv("TRILOGUE_DASHBOARD_URL", served_at)
    state = await pipeline(objective="Choose a queue", mode="local", return_state=True)
    pipeline_id = pipeline_id_for(str(run_id(state)))
    page = f"http://127.0.0.1:3000/pipelines/{pipeline_id}"
    async with get_client() as client:
        ours = FlowRunFilter(id=FlowRunFilterId(any_=[run_id(state)]))
        by_key = {artifact.key: artifact for artifact in await client.read_artifacts(flow_run_filter=ours)}
    link = by_key.pop(f"{pipeline_id}-dashboard", None)
    markdown = [str(by_key[f"{pipeline_id}-{name}"].data) for name in ("report", "result")]
    if served_at:
        assert link is not None
        assert link.data == f"[See and act on this pipeline in Trilogue's dashboard]({page})"
        assert all(f"]({page})" in text.splitlines()[0] for text in markdown)
    else:
        assert link is None
        assert not any("/pipelines/" in text for text in markdown)


async def test_a_held_pipeline_ends_its_run_as_held_and_a_continuation_completes_it() -> None:
    held = await pipeline(objective="Choose a queue", mode="local", auto_continue=False, return_state=True)
    assert (held.name, held.is_completed()) == ("Held", True)
    assert sorted(task.name for task in await settled(run_id(held), 4)) == ["report", "run-alpha", "run-beta", "spawn"]
    pipeline_id = pipeline_id_for(str(run_id(held)))

    done = await continue_pipeline(pipeline_id, reason="approved", guidance="Prefer the boring one", return_state=True)
    assert done.is_completed()
    assert (await kinds(pipeline_id))["guidance"] == 1
    tasks = await settled(run_id(done), 3)
    assert sorted(task.name for task in tasks) == ["complete", "negotiate-alpha", "negotiate-beta"]
    async with opened() as ledger:
        assert (await ledger.get_pipeline(TENANT, pipeline_id)).status is Status.COMPLETED

    again = await continue_pipeline(pipeline_id, return_state=True)
    assert again.is_failed()
    assert "COMPLETED cannot become ORCHESTRATING" in str(again.message)


async def test_a_round_out_of_time_fails_the_run_as_timeout_and_leaves_nothing_running() -> None:
    state = await pipeline(
        objective="Choose a queue", mode="local", model="rehearsal/stuck", timeout=0.5, return_state=True
    )
    assert (state.name, state.is_failed()) == ("Timeout", True)
    assert "no agreement within 0.5 s" in str(state.message)
    ends = {task.name: task.state_name for task in await settled(run_id(state), len(ONE_ROUND))}
    assert (ends["negotiate-alpha"], ends["negotiate-beta"], ends["complete"]) == ("TimedOut", "TimedOut", "Completed")


async def test_pipelines_in_one_process_keep_to_themselves() -> None:
    async with serving(load_settings()) as services:
        specs = [PipelineSpec(objective=f"Choose queue {n}", mode="local") for n in range(3)]
        ids = [await local(services).spawn(spec, may_rehearse=False) for spec in specs]
        await asyncio.gather(*(carry(pipeline_id, spec) for pipeline_id, spec in zip(ids, specs, strict=True)))
        for pipeline_id, spec in zip(ids, specs, strict=True):
            board = await local(services).board(pipeline_id)
            assert (board.status, board.spec["objective"]) == (Status.COMPLETED, spec.objective)
            tasks = await settled((await flow_run_named(pipeline_id)).id, len(ONE_ROUND))
            assert sorted(task.name for task in tasks) == sorted(ONE_ROUND)


async def test_a_run_that_prefect_starts_again_goes_on_with_its_own_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRILOGUE_REHEARSAL_LATENCY", "1")
    spec = {"objective": "Choose a queue", "mode": "local"}
    async with get_client() as client:
        created = await client.create_flow_run(pipeline, parameters=spec)
        pipeline_id = pipeline_id_for(str(created.id))
        async with serving(load_settings()) as services:
            first = asyncio.create_task(
                run_flow_async(_pipeline, flow_run=created, parameters=spec, return_type="state")
            )
            await until(lambda: _recorded(services, pipeline_id))
            await running(services, pipeline_id)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        monkeypatch.setenv("TRILOGUE_REHEARSAL_LATENCY", "0.05")
        await client.set_flow_run_state(created.id, AwaitingRetry(), force=True)
        again = await client.read_flow_run(created.id)
        state: Any = await run_flow_async(_pipeline, flow_run=again, parameters=spec, return_type="state")
    assert state.is_completed()
    async with opened() as ledger:
        row = await ledger.get_pipeline(TENANT, pipeline_id)
        assert (row.status, row.attempt) == (Status.COMPLETED, 2)
        assert len((await ledger.list_pipelines(TENANT)).items) == 1
    assert (await kinds(pipeline_id))["pipeline_spawned"] == 1


async def _recorded(services: Services, pipeline_id: str) -> bool:
    return bool(await services.ledger.entries(TENANT, pipeline_id))


async def test_a_pipeline_that_is_leased_elsewhere_fails_the_run_with_the_conflict() -> None:
    async with serving(load_settings()) as services:
        spec = PipelineSpec(objective="Choose a queue", mode="local")
        pipeline_id = await local(services).spawn(spec, may_rehearse=False)
        before = await services.ledger.claim(
            TENANT, pipeline_id, owner="another worker", lease_seconds=60, flow_run_id=None
        )
        with pytest.raises(Conflict, match="held by 'another worker'"):
            await carry(pipeline_id, spec)
        row = await services.ledger.get_pipeline(TENANT, pipeline_id)
        assert (row.lease_owner, row.attempt, row.status) == ("another worker", before.fence.attempt, Status.SPAWNED)
    flow_run = await flow_run_named(pipeline_id)
    assert flow_run.state_name == "Failed"
    assert flow_run.state is not None
    assert "held by 'another worker'" in str(flow_run.state.message)


async def test_an_interrupted_run_gives_its_lease_back_and_leaves_nothing_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRILOGUE_REHEARSAL_LATENCY", "30")
    async with serving(load_settings()) as services:
        spec = PipelineSpec(objective="Choose a queue", mode="local")
        pipeline_id = await local(services).spawn(spec, may_rehearse=False)
        carried = asyncio.create_task(carry(pipeline_id, spec))
        await running(services, pipeline_id)
        carried.cancel()
        with pytest.raises(asyncio.CancelledError):
            await carried
        row = await services.ledger.get_pipeline(TENANT, pipeline_id)
        assert (row.status, row.leased, row.attempt) == (Status.RUNNING, False, 1)
    flow_run = await flow_run_named(pipeline_id)
    assert flow_run.state is not None
    assert flow_run.state.is_crashed() or flow_run.state.is_cancelled()
    tasks = {task.name: task.state for task in await settled(flow_run.id, 3)}
    assert tasks.keys() == {"spawn", "run-alpha", "run-beta"}
    assert all(state and (state.is_crashed() or state.is_cancelled()) for name, state in tasks.items() if "-" in name)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"objective": " \n"}, "objective: .*is empty or blank"),
        ({"objective": "x" * 32_769}, "objective: .*at most 32,768"),
        ({"objective": "a\x00b"}, "objective: .*control character"),
        ({"objective": "ok", "mode": "telepathy"}, "mode: .*'openrouter' or 'local'"),
        ({"objective": "ok", "timeout": 0}, "timeout: .*greater than 0"),
        ({"objective": "ok", "timeout": "soon"}, "timeout: .*valid number"),
        ({"objective": "ok", "mode": "openrouter", "model": "rehearsal"}, "it goes with mode 'local'"),
    ],
)
async def test_bad_parameters_fail_the_run_with_the_reason_and_record_no_pipeline(
    given: dict[str, Any], told: str
) -> None:
    state: Any = await pipeline(**given, return_state=True)
    assert state.is_failed()
    with pytest.raises(Exception, match=told):
        await state.aresult()
    async with opened() as ledger:
        assert not (await ledger.list_pipelines(TENANT)).items


@pytest.mark.parametrize("asked", [Cancelling, Cancelled])
async def test_cancelling_the_run_in_prefect_stops_its_pipeline(
    monkeypatch: pytest.MonkeyPatch, asked: Callable[[], State[Any]]
) -> None:
    monkeypatch.setenv("TRILOGUE_REHEARSAL_LATENCY", "30")
    async with serving(load_settings()) as services:
        spec = PipelineSpec(objective="Choose a queue", mode="local")
        pipeline_id = await local(services).spawn(spec, may_rehearse=False)
        carrying = asyncio.ensure_future(
            _pipeline(objective=spec.objective, pipeline_id=pipeline_id, return_state=True)
        )
        await running(services, pipeline_id)
        flow_run = await flow_run_named(pipeline_id)
        async with get_client() as client:
            await client.set_flow_run_state(flow_run.id, asked(), force=True)
        state = await asyncio.wait_for(carrying, STOPPED_WITHIN)
        assert state.is_cancelled()
        board = await local(services).board(pipeline_id)
    assert board.status is Status.STOPPED
    assert "cancelled in Prefect" in board.error["message"]  # type: ignore[index]  # there is one
    tasks = await settled(flow_run.id, 3)
    assert {task.state_name for task in tasks if task.name.startswith("run-")} == {"Cancelled"}
    assert (await flow_run_named(pipeline_id)).state_name == "Cancelled"
