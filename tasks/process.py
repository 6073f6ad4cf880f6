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

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType

from trilogue.errors import TrilogueError
from trilogue.services import Services, open_services
from trilogue.settings import Settings

logger = logging.getLogger(__name__)

_ASK_EVERY = 1.0
"""Seconds; a cancellation in Prefect has to have stopped everything after three (DESIGN section 6)."""


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
                    await self._services.stop(pipeline_id, "cancelled in Prefect")
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
            yield process
        finally:
            _process.reset(token)
            watching.cancel()
