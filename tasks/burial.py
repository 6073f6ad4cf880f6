"""The flow run of a worker that died: whoever takes its pipeline up ends it, for it never will by itself.

Prefect does not notice that a process is gone, and would show the run as `Running` for ever.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed
from prefect.utilities.urls import url_for

from trilogue.ledger import Claim

logger = logging.getLogger(__name__)

_LIVELY = [
    StateType.SCHEDULED,
    StateType.PENDING,
    StateType.RUNNING,
    StateType.PAUSED,
    StateType.CANCELLING,
]
_OWN_END_WITHIN = 5.0
"""Seconds for a run that gave its lease back to report its end; only one that was abandoned is known to be dead."""
_LOOK_EVERY = 0.5
_PATIENCE = 10.0
"""Seconds that a pipeline which has ended waits for Prefect to take what is reported of its predecessor."""


@asynccontextmanager
async def burying_predecessor(claim: Claim, heir: str | None) -> AsyncIterator[None]:
    """End the flow run that held the pipeline before, beside the work and never to its harm.

    Args:
        heir: the flow run that goes on with the pipeline.
    """
    former = claim.previous_flow_run_id
    if former is None or former == heir:
        yield
        return
    over = asyncio.Event()
    burying = asyncio.create_task(_bury(UUID(former), claim, heir, over))
    try:
        yield
        over.set()
        await asyncio.wait([burying], timeout=_PATIENCE)
    finally:
        burying.cancel()


async def _bury(former: UUID, claim: Claim, heir: str | None, over: asyncio.Event) -> None:
    state: State[Any] = Crashed(message=_epitaph(claim, heir))
    try:
        async with get_client() as client:
            if not claim.abandoned:
                await _own_end(client, former)
            await _crash(client, former, state)
            # Prefect records task runs from events, also those that a busy server comes to only now.
            await over.wait()
            await _crash(client, former, state)
    except ObjectNotFound:
        pass  # of another Prefect server, or deleted
    except Exception as error:  # noqa: BLE001  (whatever Prefect's client raises; Prefect never decides)
        logger.warning("flow run %s could not be ended: %s", former, type(error).__name__)


async def _own_end(client: PrefectClient, former: UUID) -> None:
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _OWN_END_WITHIN
    while loop.time() < give_up:
        if _ended(await client.read_flow_run(former)) and not await _lively_tasks(client, former):
            return
        await asyncio.sleep(_LOOK_EVERY)


async def _crash(client: PrefectClient, former: UUID, state: State[Any]) -> None:
    if not _ended(await client.read_flow_run(former)):
        await client.set_flow_run_state(former, state, force=True)
    for run in await _lively_tasks(client, former):
        await client.set_task_run_state(run.id, state, force=True)


def _ended(run: FlowRun) -> bool:
    return run.state is not None and run.state.is_final()


async def _lively_tasks(client: PrefectClient, former: UUID) -> list[TaskRun]:
    return await client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[former])),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=_LIVELY))),
    )


def _epitaph(claim: Claim, heir: str | None) -> str:
    gone = "its worker fell silent" if claim.abandoned else "it did not report its end"
    taken = f"pipeline {claim.fence.pipeline_id} was taken up under attempt {claim.fence.attempt}"
    if heir is None:
        return f"{gone}; {taken}"
    return f"{gone}; {taken} by {url_for('flow-run', obj_id=heir) or f'flow run {heir}'}"
