"""What `maintenance` does, step by step."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from prefect import Task, runtime, task
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from tasks.burial import burying_predecessor
from tasks.options import OPTIONS
from tasks.process import present
from tasks.session import Session, shared
from tasks.taking_up import DEPLOYMENT, Carry, TakenUp
from tasks.taking_up import take_up as take_up_all
from trilogue import phases
from trilogue.anchoring import anchor_due
from trilogue.deliberation.rounds import round_end, timed_out
from trilogue.errors import Conflict, Fenced, TrilogueError
from trilogue.ledger import PipelineRow
from trilogue.pipeline import Status
from trilogue.services import Services

logger = logging.getLogger(__name__)

_IN_ONE_GO = 1000
"""Rows that one step removes or looks at; what is left is left for the next time."""

BOARD_OUTLIVES = 3600.0
"""Seconds that the board of a pipeline which has ended stays in Redis; then the ledger alone has it."""


@task(name="end-overdue", task_run_name="end-overdue", **OPTIONS)
async def end_overdue() -> int:
    """End orphans whose round is out of time as the TIMEOUT that it is, without starting anything for them."""
    services = _services()
    overdue = [row for row in await services.orphans(_IN_ONE_GO) if _is_overdue(row)]
    return sum([await _end(services, row) for row in overdue])


def _is_overdue(row: PipelineRow) -> bool:
    late = row.deadline_at is not None and row.deadline_at <= row.read_at
    return row.status is Status.ORCHESTRATING and late


async def _end(services: Services, row: PipelineRow) -> bool:
    flow_run_id = str(runtime.flow_run.id)
    try:
        async with (
            services.attempt(row.tenant, row.pipeline_id, flow_run_id=flow_run_id) as attempt,
            burying_predecessor(attempt.claim, flow_run_id),
        ):
            await attempt.append(
                lambda board: phases.concluded(board, round_end(board, attempt.rules) or timed_out(board))
            )
    except (Conflict, Fenced):
        return False  # somebody else was quicker
    except TrilogueError as error:
        logger.warning("%s could not be ended: %s", row.pipeline_id, error.message)
        return False
    ended = Session(services, attempt)
    ended.tell()
    ended.exhibits.show_result(attempt.board)
    await ended.exhibits.published()
    return True


@task(name="prune-checkpoints", task_run_name="prune-checkpoints", **OPTIONS)
async def prune_checkpoints() -> int:
    """Remove checkpoints that are past their retention."""
    services = _services()
    older, removed = services.settings.checkpoint_retention, 0
    while some := await services.ledger.prune_checkpoints(older_seconds=older, limit=_IN_ONE_GO):
        removed += some
    return removed


@task(name="expire-boards", task_run_name="expire-boards", **OPTIONS)
async def expire_boards() -> int:
    """Let the boards of pipelines that ended since the last time or so expire soon."""
    services = _services()
    ended = await services.ledger.ended(within_seconds=BOARD_OUTLIVES, limit=_IN_ONE_GO * 10)
    return await services.live.expire_boards(ended, ttl=BOARD_OUTLIVES)


@task(name="anchor", task_run_name="anchor", **OPTIONS)
async def anchor() -> int:
    """Anchor what was recorded since the last time, where no worker does, and bring it outside."""
    return await anchor_due(_services())


@task(name="take-up", task_run_name="take-up", **OPTIONS)
async def take_up() -> TakenUp:
    """Take up every orphan (`tasks.taking_up`)."""
    return await take_up_all(_services(), _carry.get())


@asynccontextmanager
async def maintaining(carry: Carry) -> AsyncIterator[None]:
    """What the steps share: the services, and the flow that carries orphans where no deployment does."""
    async with shared():
        token = _carry.set(carry)
        try:
            yield
        finally:
            _carry.reset(token)


async def outcome_of(step: Task[..., Any]) -> State[Any]:
    """How a step ended; one that failed keeps none of the others from being done."""
    state: State[Any] = await step(return_state=True)
    return state


async def kept_up(
    *, overdue: State[Any], taken_up: State[Any], pruned: State[Any], expiring: State[Any], anchored: State[Any]
) -> State[Any]:
    """What a `maintenance` run ends as, with the count of what was done."""
    told = [
        f"{await _count(overdue)} ended at their deadline",
        await _taken_up(taken_up),
        f"{await _count(pruned)} checkpoints removed",
        f"{await _count(expiring)} boards soon to expire",
        f"{await _count(anchored)} anchors made",
    ]
    whole = all(step.is_completed() for step in (overdue, taken_up, pruned, expiring, anchored))
    return Completed(message="; ".join(told)) if whole else Failed(name="Incomplete", message="; ".join(told))


async def _count(step: State[Any]) -> str:
    return str(await step.aresult()) if step.is_completed() else "unknown how many"


async def _taken_up(step: State[Any]) -> str:
    if not step.is_completed():
        return "orphans not taken up"
    done: TakenUp = await step.aresult()
    return f"{len(done.started)} orphans given to {DEPLOYMENT}, {len(done.carried)} carried here"


_carry: ContextVar[Carry] = ContextVar("carry")


def _services() -> Services:
    process = present()
    assert process is not None
    return process.services
