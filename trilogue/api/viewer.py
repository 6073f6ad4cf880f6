"""One viewer: how far it has got in each pipeline that it watches, and what comes next.

A viewer holds no events, only its places: one that reads slowly finds the later ones in the
feed, and those that are no longer kept there in the ledger. So it costs the same however slow it is.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from trilogue import clock
from trilogue.api.feed import Feed, Told, told
from trilogue.board import Board, apply
from trilogue.clock import Micros
from trilogue.errors import Unavailable
from trilogue.events import connection_event, event_of
from trilogue.live.follow import POLL

if TYPE_CHECKING:
    from trilogue.api.hub import Hub

_MOST = 64
"""Events of one pipeline that are sent before another's get their turn."""
_PAGE = 200
"""Entries that are read from the ledger at once for a viewer that is behind."""
_ENTRIES_AT_ONCE = 50


class Place:
    """How far one viewer has got in one pipeline.

    Args:
        seq: the last event that it has; None where it has what was made before `joined`.
        least: the pipeline is at this `seq` or beyond it.
    """

    def __init__(self, viewer: "Viewer", feed: Feed, seq: int | None, *, least: int, joined: Micros = 0) -> None:
        self.feed = feed
        self.seq = seq
        self.stirred = True
        self._viewer = viewer
        self._least = least
        self._joined = joined
        self._heard: dict[int, tuple[int, int]] = {}
        self._retold: Board | None = None
        feed.watchers.add(self)

    def stir(self) -> None:
        """There may be something new."""
        self.stirred = True
        self._viewer.dirty[self] = None
        self._viewer.woken.set()

    @property
    def caught_up(self) -> bool:
        """Whether the viewer has everything that is recorded."""
        return self.seq == self.feed.head >= self._least

    async def next(self) -> Sequence[Told]:
        """Some of what the viewer does not have yet, in order; nothing when there is nothing.

        Raises:
            Unavailable: the feed is broken.
        """
        feed = self.feed
        if feed.broken:
            raise Unavailable(
                f"the events of {feed.pipeline_id!r} cannot be told; the server's log says why", code="events_broken"
            ) from feed.broken
        if self.seq is None:
            if feed.head < self._least:
                return ()
            self.seq = feed.before(self._joined)
        if self.seq + 1 < feed.first:
            return await self._from_ledger(self.seq)
        self._retold = None
        if events := feed.since(self.seq, _MOST):
            self.seq = events[-1].seq
            return events
        return self._streamed() if self.caught_up else ()

    def _streamed(self) -> Sequence[Told]:
        """The text of running turns that the viewer does not have."""
        if not self.feed.streams:
            self._heard.clear()
            return ()
        events = []
        for turn, stream in self.feed.streams.items():
            run, offset = self._heard.get(turn, (0, 0))
            if run != stream.run:
                offset = stream.base
            elif offset >= stream.end:
                continue
            events.append(stream.since(offset, self.feed.board, self.feed.pipeline_id, turn))
            self._heard[turn] = (stream.run, stream.end)
        return events

    async def _from_ledger(self, seq: int) -> Sequence[Told]:
        """The next events from the ledger; their telling needs the board, so it is folded from the beginning."""
        board = self._retold = self._retold or Board()
        events = []
        try:
            async with self._viewer.hub.retelling:
                entries = await self._viewer.hub.entries(self.feed.pipeline_id, after=board.seq, limit=_PAGE)
                for count, entry in enumerate(entries, start=1):
                    apply(board, entry)
                    if entry.seq > seq:
                        events.append(told(event_of(board, entry)))
                    if count % _ENTRIES_AT_ONCE == 0:
                        await asyncio.sleep(0)
        except Unavailable:
            await asyncio.sleep(POLL)
        if events:
            self.seq = events[-1].seq
        self.stir()  # the feed is ahead, so there is more
        return events


class Viewer:
    """An endless iterator of batches of events, for one connection; ends at rest where that is asked for.

    Add the pipelines that are to be watched, and close it in the end. From time to time a batch is a heartbeat.

    Args:
        until_rest: end when every pipeline has ended and all about it was told.

    Attributes:
        dirty: the places where there may be something new; `woken` is set with it.
        given_up: whether it reads too slowly to be told any more.
    """

    def __init__(self, hub: "Hub", *, until_rest: bool = False) -> None:
        self.hub = hub
        self.places: dict[str, Place] = {}
        self.dirty: dict[Place, None] = {}
        self.woken = asyncio.Event()
        self.given_up = False
        self._until_rest = until_rest
        self._leaving = False
        self._beat_at = asyncio.get_running_loop().time() + hub.heartbeat

    def add(self, pipeline_id: str, seq: int | None, *, least: int, joined: Micros = 0) -> None:
        """Watch a pipeline; `Place` says what the arguments are."""
        place = Place(self, self.hub.attach(pipeline_id), seq, least=least, joined=joined)
        self.places[pipeline_id] = place
        place.stir()

    def leave(self, place: Place) -> None:
        """Watch a pipeline no longer."""
        self.dirty.pop(place, None)
        del self.places[place.feed.pipeline_id]
        place.feed.watchers.discard(place)
        self.hub.detach(place.feed)

    def close(self) -> None:
        """Watch nothing any more."""
        for place in list(self.places.values()):
            self.leave(place)

    def end(self) -> None:
        """Let the iteration end: the server is going away."""
        self._leaving = True
        self.woken.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[Told]:
        while not self._leaving:
            if asyncio.get_running_loop().time() >= self._beat_at:
                return [self._beat()]
            if events := await self._next():
                return events
            if self._until_rest and all(place.caught_up and place.feed.at_rest for place in self.places.values()):
                break
            await self._wait()
        raise StopAsyncIteration

    async def _next(self) -> Sequence[Told]:
        while self.dirty:
            place = next(iter(self.dirty))
            del self.dirty[place]
            if events := await place.next():
                self.dirty[place] = None  # behind the others
                return events
        return ()

    async def _wait(self) -> None:
        self.woken.clear()
        if self.dirty or self._leaving:
            return
        try:
            async with asyncio.timeout_at(self._beat_at):
                await self.woken.wait()
        except TimeoutError:
            pass

    def _beat(self) -> Told:
        self._beat_at = asyncio.get_running_loop().time() + self.hub.heartbeat
        self.rested()
        return told(connection_event("heartbeat", clock.now(), {}))

    def rested(self) -> None:
        """Called with each heartbeat."""
