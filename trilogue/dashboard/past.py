"""Pipelines as they stood: read once and folded on from the moment nearest to the one that is asked for.

A slider that is drawn over a pipeline asks many times in a row; what it needs is kept for half a minute.
"""

import asyncio

from trilogue import clock, launch
from trilogue.dashboard.breaker import breaker_of
from trilogue.dashboard.scene import Scene
from trilogue.dashboard.story import Story
from trilogue.entry import Entry
from trilogue.ledger import PipelineRow
from trilogue.ledger.opening import TENANT
from trilogue.services import Services

KEPT = 30.0
"""Seconds after the last question that a pipeline's entries are kept."""
MOST_KEPT = 16
"""Pipelines whose entries are kept at once."""
APART = 250
"""Entries between two stories that are kept: what is folded at once takes a few milliseconds."""


class _Told:
    """One pipeline's entries as far as they were read, and stories to go on from, by their `seq`."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.flow_run: tuple[str | None, str | None] = (None, None)
        self.reading = asyncio.Lock()
        self._stories: dict[int, Story] = {0: Story()}

    async def story(self, seq: int) -> Story:
        """The story up to `seq`, which is the caller's own."""
        seq = min(seq, len(self.entries))
        story = self._stories[max(known for known in self._stories if known <= seq)].copy()
        for entry in self.entries[story.board.seq : seq]:
            story.add(entry)
            if entry.seq % APART == 0:
                self._stories[entry.seq] = story.copy()
                await asyncio.sleep(0)
        return story


class Past:
    """Gives the scenes of pipelines, as they stand and as they stood."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._told: dict[str, _Told] = {}
        self._forgetting: dict[str, asyncio.TimerHandle] = {}

    def close(self) -> None:
        for forgetting in self._forgetting.values():
            forgetting.cancel()

    async def scene(self, pipeline_id: str, at: int | None) -> Scene:
        """A pipeline after its entry `at`, or now.

        Raises:
            NotFound: no such pipeline.
            Unavailable: the ledger is away.
        """
        row = await self._services.ledger.get_pipeline(TENANT, pipeline_id)
        told = self._kept(pipeline_id)
        async with told.reading:
            if (known := len(told.entries)) < row.head_seq:
                more = await self._services.ledger.entries(TENANT, pipeline_id, after=known)
                told.entries = [*told.entries, *more]
            if row.flow_run_id != told.flow_run[0]:
                told.flow_run = (row.flow_run_id, await flow_run_url(row))
            story = await told.story(at or len(told.entries))
        replay = at is not None and at < row.head_seq
        at_work = row.leased and not replay and not row.status.ended
        return Scene(
            story=story,
            breaker=await breaker_of(self._services, story.board) if at_work else None,
            row=row,
            now=story.board.at if replay else clock.now(),
            replay=replay,
            flow_run_url=told.flow_run[1],
            whole=told.entries,
        )

    def _kept(self, pipeline_id: str) -> _Told:
        if forgetting := self._forgetting.pop(pipeline_id, None):
            forgetting.cancel()
        told = self._told.pop(pipeline_id) if pipeline_id in self._told else _Told()
        self._told[pipeline_id] = told  # as the latest
        while len(self._told) > MOST_KEPT:
            self._forget(next(iter(self._told)))
        self._forgetting[pipeline_id] = asyncio.get_running_loop().call_later(KEPT, self._forget, pipeline_id)
        return told

    def _forget(self, pipeline_id: str) -> None:
        self._told.pop(pipeline_id, None)
        if forgetting := self._forgetting.pop(pipeline_id, None):
            forgetting.cancel()


async def flow_run_url(row: PipelineRow) -> str | None:
    """Where Prefect shows the flow run of a pipeline's present or last attempt; it is looked up in files."""
    return row.flow_run_id and await asyncio.to_thread(launch.flow_run_url, row.flow_run_id)
