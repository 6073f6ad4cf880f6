"""What all flow runs of one process share: the services, and one watch for cancellations in Prefect.

A flow that runs in our own process does not notice `Cancelling` by itself: Prefect's runner kills
processes, and there is none to kill. So one question a second asks for all of them.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType

from trilogue.anchoring import anchor_at_end
from trilogue.desk import local
from trilogue.errors import TrilogueError
from trilogue.services import Services, open_services
from trilogue.settings import Settings
from trilogue.webhooks import delivering

logger = logging.getLogger(__name__)

_ASK_EVERY = 1.0
"""Seconds; a cancellation in Prefect has to have stopped everything after three (DESIGN section 6)."""

_CANCEL_AGAIN = 2.0
"""Seconds until a flow run that SIGTERM cut off, and that goes on, is cut off again."""

_ANSWERED_WITHIN = 5.0
"""Seconds for Prefect to say whether a run is being cancelled, of the 30 until its runner kills the process."""


class Cancellations:
    """Stops the pipelines whose flow runs somebody cancels in Prefect's UI or API."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._watched: dict[UUID, str] = {}

    @contextmanager
    def watching(self, flow_run_id: str, pipeline_id: str) -> Iterator[None]:
        """Watch a flow run for as long as it works on its pipeline."""
        self._watched[UUID(flow_run_id)] = pipeline_id
        try:
            yield
        finally:
            del self._watched[UUID(flow_run_id)]

    async def watch(self) -> None:
        """Ask for ever."""
        async with get_client() as client:
            while True:
                await asyncio.sleep(_ASK_EVERY)
                if self._watched:
                    await self._look(client)

    async def _look(self, client: PrefectClient) -> None:
        cancelled = FlowRunFilterStateType(any_=[StateType.CANCELLING, StateType.CANCELLED])
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=list(self._watched)), state=FlowRunFilterState(type=cancelled))
        try:
            runs = await client.read_flow_runs(flow_run_filter=wanted)
        except Exception as error:  # noqa: BLE001  (whatever Prefect's client raises; Prefect never decides)
            logger.warning("cancellations in Prefect cannot be seen: %s", type(error).__name__)
            return
        for run in runs:
            if pipeline_id := self._watched.get(run.id):
                try:
                    await local(self._services).stop(pipeline_id, "cancelled in Prefect")
                except TrilogueError as error:
                    logger.warning("%s was cancelled in Prefect: %s", pipeline_id, error.message)


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process's services and watch."""

    services: Services
    cancellations: Cancellations
    on_sigterm: Any  # as `signal.getsignal` gave it

    def keep_own_sigterm(self) -> None:
        """Put this process's own answer to SIGTERM back in place of the one that Prefect sets at each flow's start.

        Prefect's raises an exception wherever the event loop happens to be, where it may end the wrong task or none.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.on_sigterm)


@contextmanager
def ending_in_order_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end this flow run, which has the process to itself, without breaking into it.

    What Prefect sets at a flow's start raises an exception wherever the event loop happens to be, where it may end
    the wrong task or none. A run that is being cancelled in Prefect is left to the watch, which stops its pipeline;
    any other, as on a machine that is being drained, is cut off, which gives the lease back at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # nor did Prefect set anything
        return
    loop, work, flow_run_id = asyncio.get_running_loop(), asyncio.current_task(), UUID(str(runtime.flow_run.id))
    assert work is not None
    ending: asyncio.Task[None] | None = None
    over = False

    def begin() -> None:
        nonlocal ending
        if not over and ending is None:
            ending = loop.create_task(_end(work, flow_run_id))

    before = signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(begin))
    try:
        yield
    finally:
        over = True
        if ending is not None:
            ending.cancel()
        if runtime.flow_run.parent_flow_run_id is not None:
            signal.signal(signal.SIGTERM, before)
        # Otherwise Prefect puts back what was there before the run, once the run's end is reported.


async def _end(work: asyncio.Task[Any], flow_run_id: UUID) -> None:
    """Cancel the work until it ends, unless Prefect says that the run is being cancelled."""
    while True:
        if not await _cancelled_in_prefect(flow_run_id):
            work.cancel()
        await asyncio.sleep(_CANCEL_AGAIN)


async def _cancelled_in_prefect(flow_run_id: UUID) -> bool:
    try:
        async with asyncio.timeout(_ANSWERED_WITHIN), get_client() as client:
            state = (await client.read_flow_run(flow_run_id)).state
    except Exception as error:  # noqa: BLE001  (whatever Prefect's client raises; Prefect never decides)
        logger.warning("Prefect does not say whether this run is cancelled: %s", type(error).__name__)
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())


_process: ContextVar[Process] = ContextVar("process")


def present() -> Process | None:
    """The process's shared parts, where it carries many pipelines."""
    return _process.get(None)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Process]:
    """Open what the flow runs of this process share."""
    async with open_services(settings) as services:
        process = Process(
            services=services, cancellations=Cancellations(services), on_sigterm=signal.getsignal(signal.SIGTERM)
        )
        watching = asyncio.create_task(process.cancellations.watch())
        token = _process.set(process)
        try:
            async with delivering(services):
                yield process
            await anchor_at_end(services)
        finally:
            _process.reset(token)
            watching.cancel()
