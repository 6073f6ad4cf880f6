"""Whoever cancels a flow run in Prefect stops its pipeline, and no other one of the same process."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.states import Cancelled, Cancelling

from flows.pipeline import pipeline
from tasks.session import side_by_side
from tests.driving import shown
from tests.fixtures.book import until
from tests.fixtures.model_server import KEY
from tests.fixtures.prefect import PrefectServer
from trilogue.desk import local
from trilogue.entry import Kind
from trilogue.launch import serving
from trilogue.ledger.identities import AT_THE_TERMINAL
from trilogue.ledger.ledger import Ledger
from trilogue.ledger.opening import TENANT
from trilogue.ledger.stopping import stop
from trilogue.models.rehearsal.script import rehearse
from trilogue.pipeline import Status
from trilogue.settings import load_settings
from trilogue.spec import checked_spec
from trilogue.testing.openrouter import OpenRouterServer
from trilogue.testing.openrouter import serving as answering

_pipeline: Any = pipeline
STOPPED_WITHIN = 3.0
"""Seconds from the cancellation in Prefect until nothing acts any more (DESIGN section 6)."""


@pytest.fixture
async def openrouter(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    migrated_sqlite_url: str,
    redis_url: str,
    no_blocks: None,
    prefect_server: PrefectServer,
) -> AsyncIterator[OpenRouterServer]:
    """A model server that takes its time, and this process set up by its environment to use it."""
    for name in ("LOCAL_MODEL_URL", "VAULT_ADDR", "AUTO_ORCHESTRATE", "ORCHESTRATION_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    async with answering(rehearse, key=KEY, latency=2.0) as server:
        for name, value in {
            "PREFECT_API_URL": prefect_server.api_url,
            "TRILOGUE_HOME": str(tmp_path / "home"),
            "TRILOGUE_DATABASE_URL": migrated_sqlite_url,
            "REDIS_URL": redis_url,
            "OPENROUTER_BASE_URL": server.url,
            "OPENROUTER_API_KEY": KEY,
            "OPENROUTER_MODEL": "test/one",
        }.items():
            monkeypatch.setenv(name, value)
        yield server


async def test_of_many_runs_in_one_process_those_that_are_cancelled_stop_and_the_others_complete(
    openrouter: OpenRouterServer,
) -> None:
    openrouter.latency = 6.0  # all four are under way before the first one has its answer, however busy the machine
    async with serving(load_settings()) as services:
        objectives = {await local(services).spawn(checked_spec(objective=o), may_rehearse=False): o for o in "abcd"}
        runs = {
            pipeline_id: asyncio.ensure_future(_pipeline(objective=o, pipeline_id=pipeline_id, return_state=True))
            for pipeline_id, o in objectives.items()
        }
        await until(lambda: {shown(seen)["objective"] for seen in openrouter.chats} == set(objectives.values()), 20)
        cancelled = list(objectives)[:2]
        for pipeline_id, asked in zip(cancelled, (Cancelling, Cancelled), strict=True):
            await _set_state(pipeline_id, asked)
        ends = await asyncio.wait_for(asyncio.gather(*(runs[p] for p in cancelled)), STOPPED_WITHIN)
        assert all(end.is_cancelled() for end in ends)
        stopped, openrouter.latency = time.monotonic(), 0.05
        others = await asyncio.gather(*(runs[p] for p in list(objectives)[2:]))
        assert all(end.is_completed() for end in others)

        for pipeline_id in cancelled:
            assert (await local(services).board(pipeline_id)).status is Status.STOPPED
            entries = await services.ledger.entries(TENANT, pipeline_id)
            assert [entry.kind for entry in entries[-3:]] == [Kind.STATUS, Kind.STOPPED, Kind.CHECKPOINT]
            assert entries[-2].body["reason"] == "cancelled in Prefect"
            calls = [seen for seen in openrouter.chats if shown(seen)["objective"] == objectives[pipeline_id]]
            assert [seen.began < stopped for seen in calls] == [True, True]
            await _ends_as_cancelled(pipeline_id)


async def test_a_stop_of_which_the_ledger_tells_first_ends_its_task_runs_as_cancelled(
    openrouter: OpenRouterServer, migrated_sqlite_url: str
) -> None:
    async def stopped_elsewhere() -> None:
        ledger = await Ledger.open(migrated_sqlite_url, migrate=False)
        try:
            await stop(ledger, TENANT, pipeline_id, "enough", by=AT_THE_TERMINAL)
        finally:
            await ledger.close()

    def answer(request: Any) -> str:
        if not stops:  # committed while the loop stands still, so that nobody here has looked for it
            stops.append(threading.Thread(target=lambda: asyncio.run(stopped_elsewhere())))
            stops[0].start()
            stops[0].join()
        return rehearse(request)

    stops: list[threading.Thread] = []
    openrouter.brain, openrouter.latency = answer, 0.0
    async with serving(load_settings()) as services:
        pipeline_id = await local(services).spawn(checked_spec(objective="x"), may_rehearse=False)
        state = await _pipeline(objective="x", pipeline_id=pipeline_id, return_state=True)
        assert state.is_cancelled(), state
        await _ends_as_cancelled(pipeline_id)


async def _set_state(pipeline_id: str, asked: Callable[[], State[Any]]) -> None:
    async with get_client() as client:
        await client.set_flow_run_state((await _flow_run(pipeline_id)).id, asked(), force=True)


async def _flow_run(pipeline_id: str) -> FlowRun:
    async with get_client() as client:
        ours = FlowRunFilter(name=FlowRunFilterName(any_=[pipeline_id]))
        (found,) = await client.read_flow_runs(flow_run_filter=ours)
        return found


async def _ends_as_cancelled(pipeline_id: str) -> None:
    """The flow run is `Cancelled`, so are its agents' task runs, and none is left open."""
    run = await _flow_run(pipeline_id)
    assert run.state_name == "Cancelled"
    await until(lambda: _all_ended(run.id), seconds=20)
    ends = {task.name: task.state_name for task in await _task_runs(run.id)}
    assert ends["run-alpha"] == ends["run-beta"] == "Cancelled"


async def _task_runs(flow_run_id: UUID) -> list[TaskRun]:
    async with get_client() as client:
        ours = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
        found: list[TaskRun] = await client.read_task_runs(flow_run_filter=ours, limit=50)
        return found


async def _all_ended(flow_run_id: UUID) -> bool:
    """Prefect records task runs by events, which may come late."""
    found = await _task_runs(flow_run_id)
    return len(found) >= 3 and all(task.state is not None and task.state.is_final() for task in found)


async def test_a_part_that_swallows_its_cancellation_is_cancelled_with_the_next_one() -> None:
    cancellations = 0

    async def deaf() -> None:
        nonlocal cancellations
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancellations += 1

    working = asyncio.create_task(side_by_side(deaf(), asyncio.Event().wait()))
    for expected in (1, 2):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        working.cancel()
        await until(lambda expected=expected: cancellations == expected)  # type: ignore[misc]
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(working, 1)


async def test_of_two_parts_that_fail_the_first_error_is_raised_and_the_rest_is_over() -> None:
    over = asyncio.Event()

    async def waits() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        over.set()
        raise ValueError("second")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        await side_by_side(waits(), fails())
    assert over.is_set()
