"""A warm worker draws for tickets and without them, never too many at once, and lets go at its end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId, TaskRunFilter, TaskRunFilterName
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW, temporary_settings

from flows.pipeline import pipeline
from tasks import worker as worker_module
from tasks.tickets import draw
from tests.fixtures.book import until
from tests.fixtures.prefect import SetUp
from trilogue import clock, launch
from trilogue.desk import local
from trilogue.entry import Entry, Kind
from trilogue.launch import send_ticket, serving
from trilogue.ledger import PipelineRow
from trilogue.ledger.opening import TENANT
from trilogue.pipeline import Status
from trilogue.services import Services
from trilogue.settings import load_settings
from trilogue.spec import PipelineSpec

SPEC = PipelineSpec(objective="Choose a queue", mode="local", model="rehearsal")
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def installation(set_up: SetUp) -> None:
    """Only the rehearsal can be reached."""
    set_up(TRILOGUE_REHEARSAL_LATENCY="0.02")


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    async with serving(load_settings()) as opened:
        yield opened


@pytest.fixture
async def client() -> AsyncIterator[PrefectClient]:
    async with get_client() as opened:
        yield opened


@asynccontextmanager
async def working(*, concurrency: int = 4) -> AsyncIterator[None]:
    """A warm worker beside the block; cut off at its end."""
    with temporary_settings({PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW: "ignore"}):  # as `launch.prefect_server` has it
        worker = asyncio.create_task(launch.work(load_settings(), concurrency=concurrency, grace=PATIENCE))
    try:
        yield
        assert not worker.done(), worker.exception()
    finally:
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker


async def drawn_by_somebody(client: PrefectClient) -> bool:
    asked = {"task_worker_filter": {"task_keys": [draw.task_key]}}
    return bool((await client.request("POST", "/task_workers/filter", json=asked)).json())


async def tickets(client: PrefectClient, since: int = 0) -> list[TaskRun]:
    """All tickets that were ever sent to the server, but the first `since`."""
    named = TaskRunFilter(name=TaskRunFilterName(any_=["draw"]))
    runs = await client.read_task_runs(task_run_filter=named, limit=200)
    return sorted(runs, key=lambda run: str(run.created))[since:]


async def spawn(services: Services) -> str:
    return await local(services).spawn(SPEC, may_rehearse=True, queued=True)


async def row_of(services: Services, pipeline_id: str) -> PipelineRow:
    return await services.ledger.get_pipeline(TENANT, pipeline_id)


async def completed(services: Services, *pipeline_ids: str) -> None:
    async def all_of_them() -> bool:
        rows = [await row_of(services, each) for each in pipeline_ids]
        return all(row.status is Status.COMPLETED for row in rows)

    await until(all_of_them, PATIENCE)


async def test_a_ticket_begins_what_waits_and_one_for_nothing_ends_completed_too(
    services: Services, client: PrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_LOOK_EVERY", PATIENCE)
    monkeypatch.setattr(worker_module, "_UPKEEP_EVERY", PATIENCE)
    before = len(await tickets(client))
    async with working():
        await until(lambda: drawn_by_somebody(client), PATIENCE)
        pipeline_id = await spawn(services)
        await send_ticket()
        await completed(services, pipeline_id)
        await send_ticket()

        async def both_ended() -> bool:
            return [run.state_name for run in await tickets(client, before)] == ["Completed", "Completed"]

        await until(both_ended, PATIENCE)
    useful, useless = await tickets(client, before)
    assert [str(run.state.message) for run in (useful, useless) if run.state] == [
        f"{pipeline_id} is carried on",
        "nothing to be drawn here",
    ]
    for run in (useful, useless):
        assert run.state
        assert (run.state.state_details.task_parameters_id, run.task_key) == (None, "trilogue-draw")
    flow_run = await client.read_flow_run(UUID(str((await row_of(services, pipeline_id)).flow_run_id)))
    assert flow_run.state
    assert (flow_run.state.name, flow_run.parent_task_run_id) == ("Completed", None)


async def test_without_a_worker_or_without_prefect_no_ticket_is_sent_and_nothing_is_raised(
    client: PrefectClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def nobody() -> bool:
        return not await drawn_by_somebody(client)

    await until(nobody, PATIENCE)
    before = len(await tickets(client))
    await send_ticket()
    assert await tickets(client, before) == []
    assert not caplog.records
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        await send_ticket()
    assert "no ticket was sent" in caplog.text


async def test_what_waited_or_was_orphaned_before_is_carried_without_tickets_and_never_too_many_at_once(
    services: Services,
) -> None:
    waiting = [await spawn(services) for _ in range(5)]
    orphan = await local(services).spawn(SPEC, may_rehearse=True)
    await services.ledger.claim(TENANT, orphan, owner="dead", lease_seconds=0, flow_run_id=None)
    async with working(concurrency=2):
        await completed(services, *waiting, orphan)
    entries = [await services.ledger.entries(TENANT, each) for each in (*waiting, orphan)]
    assert _at_once(entries) == 2
    rows = [await row_of(services, each) for each in (*waiting, orphan)]
    assert [row.attempt for row in rows] == [1, 1, 1, 1, 1, 2]
    for one in entries:
        assert [entry.kind for entry in one].count(Kind.CONSENSUS) == 1


def _at_once(pipelines: list[list[Entry]]) -> int:
    """How many pipelines were under way at the same moment, at most; by the entries of their workers."""
    spans = [[entry.at for entry in entries if entry.attempt] for entries in pipelines]
    return max(sum(span[0] <= at <= span[-1] for span in spans) for each in spans for at in each)


async def test_a_worker_that_is_cut_off_lets_go_at_once_for_others_and_its_runs_end(
    services: Services, client: PrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRILOGUE_REHEARSAL_LATENCY", "30")
    pipeline_id = await spawn(services)

    async def under_way() -> bool:
        entries = await services.ledger.entries(TENANT, pipeline_id)
        return any(entry.kind is Kind.TURN_BEGUN for entry in entries)

    async with working():
        await until(under_way, PATIENCE)
        ended_at = clock.now()
    row = await row_of(services, pipeline_id)
    assert (row.status, row.leased, row.orphaned) == (Status.RUNNING, False, False)
    assert row.queued_at
    assert row.queued_at - ended_at < clock.seconds(5)
    former = await client.read_flow_run(UUID(str(row.flow_run_id)))
    assert former.state
    assert former.state.is_final()

    monkeypatch.setenv("TRILOGUE_REHEARSAL_LATENCY", "0.02")
    async with working():
        await completed(services, pipeline_id)
    assert (await row_of(services, pipeline_id)).attempt == 2


async def test_the_launcher_deployment_starts_one_run_of_it_for_each_and_carries_nothing_itself(
    services: Services, client: PrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRILOGUE_LAUNCHER", "deployment")
    monkeypatch.setenv("TRILOGUE_LEASE_SECONDS", "0.2")  # so that what still waits is drawn again and again
    flow: Any = pipeline
    deployment = await client.create_deployment(await client.create_flow(flow), "pipeline")
    waiting = [await spawn(services) for _ in range(3)]

    async def runs() -> list[FlowRun]:
        ours = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
        return await client.read_flow_runs(flow_run_filter=ours)

    async def started() -> bool:
        return len(await runs()) == 3

    try:
        async with working():
            await until(started, PATIENCE)
            again = clock.now() + clock.seconds(2)
            await until(lambda: clock.now() > again)
        found = await runs()
    finally:
        await client.delete_deployment(deployment)
    assert sorted(run.name for run in found) == sorted(waiting)
    assert {run.state_name for run in found} == {"Scheduled"}
    rows = [await row_of(services, each) for each in waiting]
    assert [(row.status, row.attempt, row.orphaned) for row in rows] == [(Status.SPAWNED, 0, False)] * 3
