"""The stages of this process, and who sits before them; and those who look at the list of pipelines."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self

from trilogue.api.hub import Hub
from trilogue.dashboard.lookout import Lookout
from trilogue.dashboard.past import Past
from trilogue.dashboard.seat import Seat
from trilogue.dashboard.stage import Stage
from trilogue.ledger import PipelineRow
from trilogue.ledger.opening import TENANT
from trilogue.services import Services

LINGER = 10.0
"""Seconds that a stage outlives its last seat: a page that is reloaded finds it."""


class House:
    """Use as an async context manager.

    Attributes:
        stages: by pipeline; a stage is shared by all pages that show it.
        past: pipelines as they stand when a page is opened, and as they stood.
    """

    def __init__(self, services: Services, *, heartbeat: float, patience: float = 30.0) -> None:
        self.heartbeat = heartbeat
        self.patience = patience
        self.past = Past(services)
        self._services = services
        self.stages: dict[str, Stage] = {}
        self._seats: set[Seat | Lookout] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._leaving = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()
        self.past.close()
        closing = [stage.close() for stage in self.stages.values()]
        await asyncio.gather(*closing, *self._closing, return_exceptions=True)

    def leave(self) -> None:
        """End every seat, as when the server is about to go away; call it as soon as that is known."""
        self._leaving = True
        for seat in self._seats:
            seat.end()

    @contextlib.asynccontextmanager
    async def seated(self, pipeline_id: str, seq: int) -> AsyncIterator[Seat]:
        """A seat before a pipeline, for a page that has the log's rows up to `seq`.

        Raises:
            NotFound: no such pipeline.
            Unavailable: the ledger is away.
        """
        stage = self._at_work(pipeline_id)
        if stage is None:
            row = await self._services.ledger.get_pipeline(TENANT, pipeline_id)
            stage = self._at_work(pipeline_id) or self._begin(row)
        seat = Seat(stage, seq, heartbeat=self.heartbeat)
        self._seats.add(seat)
        stage.watchers.add(seat)
        if self._leaving:
            seat.end()
        try:
            yield seat
        finally:
            self._seats.discard(seat)
            stage.watchers.discard(seat)
            if not stage.watchers and not self._leaving:
                asyncio.get_running_loop().call_later(LINGER, self._drop, stage)

    @contextlib.asynccontextmanager
    async def looking(self, hub: Hub) -> AsyncIterator[Lookout]:
        """A lookout over all pipelines, for a page that lists them."""
        lookout = Lookout(heartbeat=self.heartbeat)
        self._seats.add(lookout)
        if self._leaving:
            lookout.end()
        try:
            async with hub.hearing(lookout):
                yield lookout
        finally:
            self._seats.discard(lookout)

    def _at_work(self, pipeline_id: str) -> Stage | None:
        stage = self.stages.get(pipeline_id)
        return None if stage is None or stage.broken else stage

    def _begin(self, row: PipelineRow) -> Stage:
        if broken := self.stages.pop(row.pipeline_id, None):
            self._close(broken)
        stage = self.stages[row.pipeline_id] = Stage(self._services, row)
        return stage

    def _drop(self, stage: Stage) -> None:
        if stage.watchers or self._leaving or self.stages.get(stage.pipeline_id) is not stage:
            return
        del self.stages[stage.pipeline_id]
        self._close(stage)

    def _close(self, stage: Stage) -> None:
        closing = asyncio.create_task(stage.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
