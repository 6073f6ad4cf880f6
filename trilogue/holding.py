"""What this process holds: leases taken and renewed, and work ended at once where a pipeline is no longer ours.

A stop, or another worker that took a pipeline up, is seen by one query for all that is held.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from trilogue.errors import Fenced, TrilogueError
from trilogue.ledger import Claim, Fence, Ledger, PipelineKey

logger = logging.getLogger(__name__)

_WATCH_EVERY = 0.25
"""Seconds between two looks for stops: within one second nothing may act any more (DESIGN section 6)."""

_CANCEL_AGAIN = 2.0
"""Seconds until work that goes on is cancelled again: Prefect can swallow a cancellation at a task's edge."""


@dataclass(kw_only=True)
class Hold:
    """A pipeline that this process works on. `lost` says why it must not any more."""

    claim: Claim
    task: asyncio.Task[Any]
    leased_until: float
    """By this process's own monotonic clock, which goes on while the process stands still."""
    lost: Fenced | None = None
    _cancellations: int = 0
    _again: asyncio.TimerHandle | None = None
    _over: bool = False

    def __post_init__(self) -> None:
        # A task group of Python 3.11 that ended with an error may have left its task marked as being cancelled.
        self._marked = self.task.cancelling()

    @property
    def key(self) -> PipelineKey:
        return self.claim.fence.tenant, self.claim.fence.pipeline_id

    def lose(self, why: Fenced) -> None:
        """End the work, wherever it is and as often as it takes; `Holds.taken` raises `why` in its place."""
        self.lost = why
        if not self._over:
            self._cancel()

    def _cancel(self) -> None:
        self._cancellations += 1
        self.task.cancel()
        self._again = self.task.get_loop().call_later(_CANCEL_AGAIN, self._cancel)

    def ended(self) -> bool:
        """Cancel no more, and take back what was done; whether somebody else wants the task cancelled."""
        self._over = True
        if self._again:
            self._again.cancel()
        for _ in range(self._cancellations):
            self.task.uncancel()
        self._cancellations = 0
        return self.task.cancelling() > self._marked


class Holds:
    """All that one process holds, under one owner's name; `renew` and `watch` run beside the work, for ever."""

    def __init__(self, ledger: Ledger, *, lease_seconds: float) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._ledger = ledger
        self._lease_seconds = lease_seconds
        self.draining = False
        """Whether what is let go from now on is for any other worker to draw at once."""
        self._held: dict[Fence, Hold] = {}  # by fence: a pipeline resumed here may meet its stopped attempt's end

    @asynccontextmanager
    async def taken(self, tenant: str, pipeline_id: str, *, flow_run_id: str | None) -> AsyncIterator[Hold]:
        """Take a pipeline's lease for the work inside; on leaving, give it back. Call `Hold.ended` before tidying up.

        Raises:
            NotFound: no such pipeline.
            Conflict: somebody else works on it, or it has ended.
            Fenced: on the way: it was stopped, or another attempt has taken it up.
        """
        asked, task = time.monotonic(), asyncio.current_task()
        assert task is not None
        claim = await self._ledger.claim(
            tenant, pipeline_id, owner=self.owner, lease_seconds=self._lease_seconds, flow_run_id=flow_run_id
        )
        hold = Hold(claim=claim, task=task, leased_until=asked + self._lease_seconds)
        self._held[claim.fence] = hold
        try:
            yield hold
        except asyncio.CancelledError:
            if hold.ended() or hold.lost is None:
                raise
            raise hold.lost from None
        finally:
            hold.ended()
            del self._held[claim.fence]
            with contextlib.suppress(TrilogueError):  # out of reach: the lease runs out by itself
                await asyncio.shield(self._ledger.release(claim.fence, owner=self.owner, queued=self.draining))

    def has(self, key: PipelineKey) -> bool:
        """Whether this process works on a pipeline, under a lease."""
        return any(hold.key == key for hold in self._held.values())

    def may_stream(self, tenant: str, pipeline_id: str) -> bool:
        """Whether what an agent says may be shown: not once the lease may be another's, or the pipeline was stopped."""
        now = time.monotonic()
        mine = (hold for hold in self._held.values() if hold.key == (tenant, pipeline_id))
        return any(hold.lost is None and now < hold.leased_until for hold in mine)

    async def renew(self) -> None:
        """Renew the leases, three times within their length; one that was lost ends its work."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            if not self._held:
                continue
            asked, asked_at = list(self._held.values()), time.monotonic()
            try:
                keys = {hold.key for hold in asked}
                kept = await self._ledger.renew(self.owner, keys, lease_seconds=self._lease_seconds)
            except TrilogueError as error:
                logger.warning("leases were not renewed: %s", error.message)
                continue
            for hold in asked:
                if hold.key in kept:
                    hold.leased_until = asked_at + self._lease_seconds
                else:
                    self._lose(hold, Fenced("the lease was lost; another worker has taken the pipeline up"))

    async def watch(self) -> None:
        """Look at the heads of all that is held, and end the work on pipelines that were stopped or taken up."""
        while True:
            await asyncio.sleep(_WATCH_EVERY)
            if not self._held:
                continue
            held = list(self._held.values())
            try:
                heads = await self._ledger.heads({hold.key for hold in held})
            except TrilogueError as error:
                logger.warning("stops cannot be seen: %s", error.message)
                continue
            for hold in held:
                head = heads.get(hold.key)
                if head and head.stopped:
                    self._lose(hold, Fenced("the pipeline was stopped", code="stopped"))
                elif head and head.attempt != hold.claim.fence.attempt:
                    self._lose(hold, Fenced("another attempt has taken the pipeline up"))

    def _lose(self, hold: Hold, why: Fenced) -> None:
        if hold.lost is None and hold.claim.fence in self._held:
            logger.warning("%s: %s", hold.key[1], why.message)
            hold.lose(why)
