"""Pipelines that wait are carried in this event loop, many at once, and never more than there is room for."""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from trilogue.errors import TrilogueError
from trilogue.ledger import PipelineKey, PipelineRow
from trilogue.services import Services

Carry = Callable[[PipelineRow], Awaitable[object]]

logger = logging.getLogger(__name__)

_CANCEL_AGAIN = 2.0
"""Seconds until a flow run that goes on is cancelled again: Prefect can swallow a cancellation at a task's edge."""

_LET_GO_WITHIN = 15.0
"""Seconds for what is cut off to report its end to Prefect, and for what was just begun to get as far as its lease."""

_GLANCE = 0.05


class Drawing:
    """What one worker carries. Others draw from the same ledger; its rows decide who is given what."""

    def __init__(self, services: Services, carry: Carry, *, concurrency: int) -> None:
        """`carry` takes a pipeline to wherever it goes and never raises; it begins with the lease."""
        self._services = services
        self._carry = carry
        self._concurrency = concurrency
        self._drawing = 0
        self._carrying: dict[PipelineKey, asyncio.Task[None]] = {}
        self._open = True
        # Flow runs are begun in the context of the worker, not as children of the ticket's task run.
        self._context = contextvars.copy_context()
        self.freed = asyncio.Event()
        """Set when there is room again."""

    @property
    def room(self) -> int:
        """How many more pipelines may be carried now."""
        return self._concurrency - len(self._carrying) - self._drawing if self._open else 0

    async def draw(self) -> str | None:
        """Begin to carry the next pipeline that waits and return its id; None: there is none, or no room.

        A ledger that is out of reach is a line in the log.
        """
        if self.room <= 0:
            return None
        self._drawing += 1
        try:
            return await self._drawn()
        except TrilogueError as error:
            logger.warning("nothing is drawn: %s", error.message)
            return None
        finally:
            self._drawing -= 1

    async def _drawn(self) -> str | None:
        ledger = self._services.ledger
        if not await ledger.waiting(1):  # spares the idle ones a write
            return None
        row = await ledger.draw(within_seconds=self._services.settings.lease_seconds)
        if row is None or (row.tenant, row.pipeline_id) in self._carrying:
            return None
        if not self._open:
            await ledger.put_back(row)
            return None
        carrying = asyncio.get_running_loop().create_task(self._carried(row), context=self._context.copy())
        self._carrying[row.tenant, row.pipeline_id] = carrying
        return row.pipeline_id

    async def fill(self) -> None:
        """Draw until there is no room or nothing waits."""
        while await self.draw():
            pass

    async def _carried(self, row: PipelineRow) -> None:
        try:
            await self._carry(row)
        finally:
            del self._carrying[row.tenant, row.pipeline_id]
            self.freed.set()

    def close(self) -> None:
        """Draw nothing any more."""
        self._open = False

    async def drained(self, *, grace: float, hurry: asyncio.Event) -> None:
        """Wait for what is carried, at most `grace` seconds and not once `hurry` is set; then let go of the rest.

        What is let go waits for other workers at once.
        """
        self.close()
        hurried = asyncio.create_task(hurry.wait())
        ended = asyncio.create_task(self._ended())
        try:
            await asyncio.wait({hurried, ended}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            self._services.holds.draining = True
            with suppress(TimeoutError):
                async with asyncio.timeout(_LET_GO_WITHIN):
                    await self._cut_off()
        finally:
            hurried.cancel()
            ended.cancel()
            for task in self._carrying.values():
                task.cancel()

    async def _ended(self) -> None:
        while self._carrying:
            self.freed.clear()
            await self.freed.wait()

    async def _cut_off(self) -> None:
        """Cancel each for as long as it has its lease: before it, and after, Prefect is told how the flow run goes."""
        loop = asyncio.get_running_loop()
        due: dict[PipelineKey, float] = {}
        while self._carrying:
            for key, task in self._carrying.items():
                if self._services.holds.has(key) and loop.time() >= due.get(key, 0):
                    due[key] = loop.time() + _CANCEL_AGAIN
                    task.cancel()
            await asyncio.wait(self._carrying.values(), timeout=_GLANCE, return_when=asyncio.FIRST_COMPLETED)
