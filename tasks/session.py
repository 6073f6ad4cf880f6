"""A flow run's hold on its pipeline: services opened, lease taken, and every failure recorded as the end it is.

Nothing of it crosses a task boundary; tasks find the session of their flow run in a context variable.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from prefect import runtime
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from blocks.loading import configured
from tasks.artifacts import Exhibits
from tasks.burial import burying_predecessor
from tasks.events import announce
from tasks.naming import pipeline_of_this_run
from tasks.process import Process, ending_in_order_on_sigterm, present, serving
from tasks.taking_up import give_up_quietly
from trilogue.attempt import Attempt
from trilogue.deliberation.turns import lost_turns
from trilogue.desk import local
from trilogue.errors import Conflict, Fenced, TrilogueError
from trilogue.ledger.opening import TENANT
from trilogue.phases import failed
from trilogue.pipeline import Status
from trilogue.services import Services
from trilogue.settings import load_settings
from trilogue.spec import PipelineSpec, RoundSpec

logger = logging.getLogger(__name__)

_session: ContextVar["Session"] = ContextVar("session")


class Session:
    """One flow run's work on one pipeline.

    Attributes:
        stopped: how the ledger told of a stop, where it was first to.
    """

    def __init__(self, services: Services, attempt: Attempt) -> None:
        self.services = services
        self.attempt = attempt
        self.stopped: Fenced | None = None
        self.exhibits = Exhibits(attempt.fence.pipeline_id, dashboard_url=services.settings.dashboard_url)

    @property
    def pipeline_id(self) -> str:
        return self.attempt.fence.pipeline_id

    def tell(self) -> None:
        """Tell Prefect where the pipeline is now: an event, and its progress."""
        announce(self.attempt)
        self.exhibits.show_progress(self.attempt.board)

    def state(self) -> State[Any]:
        """What the flow run ends as: its pipeline's status, in Prefect's terms."""
        board = self.attempt.board
        message = f"pipeline {self.pipeline_id}: {board.status}"
        if board.error:
            message += f" ({board.error['message']})"
        match board.status:
            case Status.COMPLETED:
                return Completed(message=message)
            case Status.REPORT:
                return Completed(name="Held", message=f"{message}, held until it is continued")
            case Status.STOPPED:
                return Cancelled(message=message)
            case Status.FAILED:
                # A name that Prefect gives to no failure of its own, so that whoever waits can tell them apart.
                return Failed(name="PipelineFailed", message=message)
            case status:
                return Failed(name=status.value.replace("_", " ").title().replace(" ", ""), message=message)


def session() -> Session:
    """The session of the flow run that the calling task belongs to."""
    return _session.get()


@asynccontextmanager
async def started(pipeline_id: str | None, spec: PipelineSpec) -> AsyncIterator[Session]:
    """Carry the pipeline `pipeline_id`; where there is none yet, record it first.

    A failure on the way is recorded as the pipeline's end and goes no further.
    """
    async with shared() as process:
        if pipeline_id is None:
            pipeline_id = await _spawned_once(process.services, spec)
        async with _carried(process, pipeline_id) as carried:
            yield carried


@asynccontextmanager
async def continued(pipeline_id: str, asked: RoundSpec) -> AsyncIterator[Session]:
    """Begin another round of a recorded pipeline and carry it on, as `started` does."""
    async with shared() as process:
        await local(process.services).begin_round(pipeline_id, asked)
        async with _carried(process, pipeline_id) as carried:
            yield carried


async def _spawned_once(services: Services, spec: PipelineSpec) -> str:
    """A flow run that Prefect starts again finds the pipeline that it recorded."""
    pipeline_id = pipeline_of_this_run(None)
    try:
        await local(services).spawn(spec, may_rehearse=False, pipeline_id=pipeline_id)
    except Conflict as conflict:
        if conflict.code != "exists":
            raise
    return pipeline_id


@asynccontextmanager
async def shared() -> AsyncIterator[Process]:
    """The process's shared parts; a flow run on its own opens its own."""
    if (process := present()) is not None:
        process.keep_own_sigterm()
        yield process
        return
    with ending_in_order_on_sigterm():
        async with serving(await configured(load_settings())) as process:
            yield process


@asynccontextmanager
async def _carried(process: Process, pipeline_id: str) -> AsyncIterator[Session]:
    services, flow_run_id = process.services, str(runtime.flow_run.id)
    carried: Session | None = None
    try:
        async with services.attempt(TENANT, pipeline_id, flow_run_id=flow_run_id) as attempt:
            carried = Session(services, attempt)
            carried.exhibits.show_link()
            token = _session.set(carried)
            try:
                with process.cancellations.watching(flow_run_id, pipeline_id):
                    async with burying_predecessor(attempt.claim, flow_run_id):
                        yield carried
            except Fenced:
                raise
            except TrilogueError as error:
                reason = error
                logger.warning("%s: %s", pipeline_id, reason.message)
                await attempt.append(lambda board: lost_turns(board) + failed(board, reason))
            finally:
                _session.reset(token)
    except Fenced as fenced:
        if carried is None or fenced.code != "stopped":
            raise
        await carried.attempt.catch_up()
    except Conflict as conflict:
        if carried is None and conflict.code in {"leased", "ended"}:
            await give_up_quietly(conflict)
        raise
    assert carried is not None
    if carried.attempt.board.status.ended:
        carried.tell()
        carried.exhibits.show_result(carried.attempt.board)
    await carried.exhibits.published()


async def side_by_side(*parts: Coroutine[Any, Any, Any]) -> None:
    """Run the parts at once in this event loop; the first error ends the others and is raised by itself.

    No task group: that passes on only the first of several cancellations, which Prefect may have swallowed.
    """
    running = [asyncio.create_task(part) for part in parts]
    try:
        first, _ = await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await _cut_off(running)
    for ended in [*first, *running]:
        ended.result()


async def _cut_off(running: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel what still runs, again whenever this task is cancelled again, until all of it has ended."""
    cancelled: asyncio.CancelledError | None = None
    while left := [task for task in running if not task.done()]:
        for task in left:
            task.cancel()
        try:
            await asyncio.wait(left)
        except asyncio.CancelledError as again:
            cancelled = again
    for task in running:
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain of a second one
    if cancelled:
        raise cancelled
