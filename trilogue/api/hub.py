"""All viewers of this process: which feeds they share, and those who watch all pipelines of the tenant."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol, Self

from trilogue import clock
from trilogue.api.feed import Feed, Told, told
from trilogue.api.viewer import Viewer
from trilogue.clock import seconds
from trilogue.entry import Entry
from trilogue.errors import Unavailable
from trilogue.events import connection_event
from trilogue.ledger.opening import TENANT
from trilogue.ledger.rows import PipelineRow
from trilogue.live import Notice, Signal, Subscription
from trilogue.live.ending import end
from trilogue.live.follow import LONGEST_TRUST, POLL
from trilogue.outcome import list_items
from trilogue.services import Services

logger = logging.getLogger(__name__)

LINGER = 10.0
"""Seconds that a feed outlives its last viewer: whoever was cut off comes back soon, and often all at once."""
RETOLD_AT_ONCE = 2
"""Viewers that read the ledger at the same time because they are behind; the others wait their turn."""
RECENT = 3600.0
"""Seconds for which an ended pipeline is shown to those who watch all."""
MOST_SHOWN = 500
CLOCKS_DIFFER = 60.0
"""Seconds by which the clocks of two machines may differ."""


class Listener(Protocol):
    """Whoever wants to know that something is new, and reads by itself what."""

    def news(self, pipeline_id: str, seq: int) -> None:
        """A pipeline is at `seq`, or beyond it. Called in the event loop; must neither wait nor raise."""


class Hub:
    """The feeds and viewers of one process. Use as an async context manager.

    Args:
        heartbeat: seconds between two signs of life to each viewer.
        patience: seconds that one message may take to be sent; then its viewer is dropped.
    """

    def __init__(self, services: Services, *, heartbeat: float, patience: float = 30.0, linger: float = LINGER) -> None:
        self.heartbeat = heartbeat
        self.patience = patience
        self.retelling = asyncio.Semaphore(RETOLD_AT_ONCE)
        self._services = services
        self.linger = linger
        self._feeds: dict[str, Feed] = {}
        self._viewers: set[Viewer] = set()
        self._listeners: set[Listener] = set()
        self._announced: dict[str, int] = {}
        self._watching: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._leaving = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()
        if self._watching:
            await end(self._watching)
        await asyncio.gather(*(feed.close() for feed in self._feeds.values()), *self._closing, return_exceptions=True)

    @property
    def feeds(self) -> int:
        """How many pipelines are followed."""
        return len(self._feeds)

    def watched(self, pipeline_id: str) -> list[Viewer]:
        """Who watches a pipeline at this moment."""
        return [viewer for viewer in self._viewers if pipeline_id in viewer.places]

    def leave(self) -> None:
        """End every viewer, as when the server is about to go away; call it as soon as that is known."""
        self._leaving = True
        for viewer in self._viewers:
            viewer.end()

    async def pipeline(self, pipeline_id: str) -> PipelineRow:
        """The pipeline as recorded, or `NotFound`."""
        return await self._services.ledger.get_pipeline(TENANT, pipeline_id)

    async def entries(self, pipeline_id: str, *, after: int, limit: int) -> Sequence[Entry]:
        """Entries for a viewer that is behind."""
        return await self._services.ledger.entries(TENANT, pipeline_id, after=after, limit=limit)

    @contextlib.contextmanager
    def viewing(self, viewer: Viewer) -> Iterator[None]:
        """Keep a viewer for as long as its connection lasts."""
        self._viewers.add(viewer)
        if self._leaving:
            viewer.end()
        try:
            yield
        finally:
            self._viewers.discard(viewer)
            viewer.close()

    def attach(self, pipeline_id: str) -> Feed:
        """The feed of a pipeline, shared by all who watch it."""
        feed = self._feeds.get(pipeline_id)
        if feed is None or feed.broken:
            feed = self._feeds[pipeline_id] = Feed(self._services, TENANT, pipeline_id)
        return feed

    def detach(self, feed: Feed) -> None:
        """Somebody watches `feed` no longer; it ends soon unless another does."""
        if not feed.watchers and not self._leaving:
            asyncio.get_running_loop().call_later(self.linger, self._drop, feed)

    def _drop(self, feed: Feed) -> None:
        if feed.watchers or self._leaving or self._feeds.get(feed.pipeline_id) is not feed:
            return
        del self._feeds[feed.pipeline_id]
        closing = asyncio.create_task(feed.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    @contextlib.asynccontextmanager
    async def viewing_all(self) -> AsyncIterator[tuple[Viewer, Told]]:
        """A viewer of all pipelines, and the snapshot that it is to be given first.

        Raises:
            Unavailable: the ledger is away.
        """
        viewer = ViewerOfAll(self, self._announced)
        async with self.hearing(viewer):
            with self.viewing(viewer):
                rows = await self._services.ledger.current(TENANT, ended_within=RECENT, limit=MOST_SHOWN)
                costs = await self._services.ledger.costs(TENANT, [row.pipeline_id for row in rows])
                viewer.begin(rows)
                items = [{**item, "seq": row.head_seq} for item, row in zip(list_items(rows, costs), rows, strict=True)]
                yield viewer, told(connection_event("snapshot", clock.now(), {"items": items}))

    @contextlib.asynccontextmanager
    async def hearing(self, listener: Listener) -> AsyncIterator[None]:
        """Tell `listener` of everything that is recorded of the tenant's pipelines from now on.

        Once inside, read the ledger: nothing lies between that and what is told. Some of what was read may be told
        again, and several entries at once by the `seq` of the last.
        """
        self._listeners.add(listener)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="news of the tenant")
        try:
            yield
        finally:
            self._listeners.discard(listener)
            if not self._listeners and self._watching:
                watching, self._watching = self._watching, None
                self._announced.clear()
                await end(watching)

    async def _watch(self) -> None:
        """Tell the listeners which pipelines have news: by notices, and by looking where none come."""
        async with self._services.live.subscribe(TENANT) as notices:
            trusted = False
            while True:
                with contextlib.suppress(Unavailable):
                    heads = await self._services.ledger.current_heads(TENANT, ended_within=CLOCKS_DIFFER)
                    for pipeline_id, seq in heads.items():
                        self._announce(pipeline_id, seq)
                trusted = await self._heed(notices, trusted=trusted)

    async def _heed(self, notices: Subscription, *, trusted: bool) -> bool:
        """Pass notices on until the ledger should be looked at; whether notices can be trusted from then on."""
        try:
            async with asyncio.timeout(LONGEST_TRUST if trusted else POLL):
                async for item in notices:
                    if isinstance(item, Notice):
                        if item.seq is not None:
                            self._announce(item.pipeline_id, item.seq)
                    else:
                        return item is Signal.RESUMED or (trusted and item is Signal.LAGGED)
        except TimeoutError:
            pass
        return trusted

    def _announce(self, pipeline_id: str, seq: int) -> None:
        if self._announced.get(pipeline_id, 0) < seq:
            self._announced[pipeline_id] = seq
            for listener in self._listeners:
                listener.news(pipeline_id, seq)


class ViewerOfAll(Viewer):
    """A viewer of all pipelines of the tenant, live: it takes a place where something happens, and leaves it after.

    Args:
        announced: the highest `seq` that was heard of each pipeline.
    """

    def __init__(self, hub: Hub, announced: dict[str, int]) -> None:
        super().__init__(hub)
        self._announced = announced
        self._joined = clock.now() - seconds(CLOCKS_DIFFER)
        self._seen: dict[str, int] | None = None
        self._early: dict[str, int] = {}

    def begin(self, rows: Sequence[PipelineRow]) -> None:
        """Go on from what the snapshot shows, and listen to those who are at work."""
        self._seen = {row.pipeline_id: row.head_seq for row in rows}
        for row in rows:
            if row.leased:
                self.add(row.pipeline_id, row.head_seq, least=row.head_seq)
        for pipeline_id, seq in self._early.items():
            self.news(pipeline_id, seq)

    def news(self, pipeline_id: str, seq: int) -> None:
        """A pipeline is at `seq`."""
        if self._seen is None:
            self._early[pipeline_id] = seq
        elif pipeline_id not in self.places and self._seen.get(pipeline_id, 0) < seq:
            self.add(pipeline_id, self._seen.get(pipeline_id), least=seq, joined=self._joined)

    def rested(self) -> None:
        """Leave the places where nothing has happened since the last heartbeat."""
        assert self._seen is not None
        for place in list(self.places.values()):
            pipeline_id, quiet = place.feed.pipeline_id, not place.stirred
            place.stirred = False
            unheard = self._announced.get(pipeline_id, 0) > place.feed.head
            if quiet and place.caught_up and not unheard and not place.feed.board.open_turns:
                assert place.seq is not None
                self._seen[pipeline_id] = place.seq
                self.leave(place)
