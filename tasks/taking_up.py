"""Orphans are carried on: by the deployment `pipeline/pipeline` where there is one, else in this process.

Several may try the same orphan at the same time. Its lease decides; the others' runs end as
`Superseded`, which is no failure.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import arun_deployment
from prefect.exceptions import Abort, ObjectNotFound
from prefect.states import Completed

from trilogue.errors import Conflict
from trilogue.ledger import PipelineRow
from trilogue.services import Services

logger = logging.getLogger(__name__)

DEPLOYMENT = "pipeline/pipeline"
TAKEN_UP = "taken-up"
"""The tag of flow runs that were started to take an orphan up."""

_AT_ONCE = 4
"""Orphans that one process carries at the same time, beside whatever else it does."""
_IN_ONE_GO = 100
"""Orphans in one look; the next one, seconds or minutes later, brings more."""
_CLAIMS_WITHIN = 120.0
"""Seconds that a run of the deployment may take from its start to the lease; a silent one is given up after that."""

Carry = Callable[..., Awaitable[Any]]
"""The flow `pipeline`."""


@dataclass(frozen=True, kw_only=True)
class TakenUp:
    """What became of the orphans of one look, by pipeline id."""

    started: tuple[str, ...] = ()
    """A run of the deployment was started."""
    carried: tuple[str, ...] = ()
    """Carried in this process, to wherever they went."""


async def take_up(services: Services, carry: Carry, *, deployment: str | None = DEPLOYMENT) -> TakenUp:
    """Take up every orphan there is; returns when those that this process carries have ended.

    Safe to call from several places and processes, at any rate, also while an earlier call still carries.

    Args:
        carry: what carries in this process, called with parameters of the flow `pipeline`.
        deployment: what carries elsewhere; `None`: always in this process.
    """
    orphans = await services.orphans(_IN_ONE_GO)
    if not orphans:
        return TakenUp()
    if deployment is not None:
        async with get_client() as client:
            if (known := await deployed(client, deployment)) is not None:
                started = [row.pipeline_id for row in orphans if await start(client, known, row)]
                return TakenUp(started=tuple(started))
    return TakenUp(carried=await _carry_here(services, carry, orphans))


async def deployed(client: PrefectClient, name: str) -> UUID | None:
    """The id of a deployment; None where there is none of that name."""
    try:
        return (await client.read_deployment_by_name(name)).id
    except ObjectNotFound:
        return None


async def start(client: PrefectClient, deployment: UUID, row: PipelineRow) -> bool:
    """Start a run of the deployment that takes the pipeline up, unless one is on its way."""
    stem = f"take-up:{row.tenant}:{row.pipeline_id}:{row.attempt}"
    ours = FlowRunFilter(tags=FlowRunFilterTags(all_=[stem]))
    runs = await client.read_flow_runs(flow_run_filter=ours, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)
    last = runs[0] if runs else None
    if last and _on_its_way(last):
        return False
    await arun_deployment(
        deployment,
        client=client,
        parameters=_parameters(row),
        flow_run_name=row.pipeline_id,
        tags=[TAKEN_UP, stem],
        timeout=0,
        as_subflow=False,
        # Two that look at the same time start the same run; where the last one died before it had the lease, a new one.
        idempotency_key=f"{stem}:{last.id if last else 'first'}",
    )
    return True


def _on_its_way(run: FlowRun) -> bool:
    state = run.state
    if state is None or state.is_final():
        return False
    return state.is_scheduled() or (datetime.now(UTC) - state.timestamp).total_seconds() < _CLAIMS_WITHIN


def _parameters(row: PipelineRow) -> dict[str, Any]:
    """All that the flow needs of a recorded pipeline; the rest it finds in the ledger."""
    return {"objective": row.objective, "project": row.spec["project"], "pipeline_id": row.pipeline_id}


async def _carry_here(services: Services, carry: Carry, orphans: Sequence[PipelineRow]) -> tuple[str, ...]:
    room = asyncio.Semaphore(_AT_ONCE)
    mine = [row for row in orphans if row.pipeline_id not in services.taking_up]
    services.taking_up.update(row.pipeline_id for row in mine)

    async def in_turn(row: PipelineRow) -> bool:
        try:
            async with room:
                return await carried(carry, row)
        finally:
            services.taking_up.discard(row.pipeline_id)

    done = await asyncio.gather(*map(in_turn, mine))
    return tuple(row.pipeline_id for row, taken in zip(mine, done, strict=True) if taken)


async def carried(carry: Carry, row: PipelineRow) -> bool:
    """Carry a pipeline that anybody may take; False: somebody else has it, or Prefect is in trouble. Never raises."""
    token = _quiet.set(True)
    try:
        await carry(**_parameters(row), return_state=True)
    except Abort:
        return False
    except Exception as error:  # noqa: BLE001  (whatever Prefect raises; other pipelines are no worse for it)
        logger.warning("%s could not be taken up: %s: %s", row.pipeline_id, type(error).__name__, error)
        return False
    finally:
        _quiet.reset(token)
    return True


_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


async def give_up_quietly(conflict: Conflict) -> None:
    """End this flow run as `Superseded` where it was started to take an orphan up and came too late.

    Raises:
        Abort: it does end so. Otherwise the conflict is the caller's to raise.
    """
    if not (_quiet.get() or TAKEN_UP in (runtime.flow_run.tags or ())):
        return
    message = f"nothing to take up: {conflict.message}"
    async with get_client() as client:
        superseded: State[Any] = Completed(name="Superseded", message=message)
        await client.set_flow_run_state(UUID(str(runtime.flow_run.id)), superseded, force=True)
    raise Abort(message)
