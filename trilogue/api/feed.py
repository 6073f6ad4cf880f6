"""One pipeline as its viewers see it: followed once, told once, however many watch.

A feed keeps the latest events in memory; whoever has fallen further behind reads the ledger.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import NamedTuple, Protocol

from trilogue import clock
from trilogue.board import Board, apply
from trilogue.entry import Entry, Kind
from trilogue.errors import Unavailable
from trilogue.events import Event, delta_event, event_of, has_come_to_rest
from trilogue.live import Delta
from trilogue.live.ending import end
from trilogue.live.notice import dumps
from trilogue.services import Services

logger = logging.getLogger(__name__)

CHARACTERS_KEPT = 256_000
"""Of the latest events of one pipeline; the last one stays, however long it is."""

_AT_ONCE = 50
"""Entries that are told before others get their turn of the event loop."""


class Told(NamedTuple):
    """An event as it is sent: `text` is its JSON, made once for all viewers."""

    seq: int | None
    type: str
    text: str


def told(event: Event) -> Told:
    """`event`, ready to be sent."""
    return Told(event["seq"], event["type"], dumps(event))


class Watcher(Protocol):
    """Who wants to know that a feed has something new."""

    def stir(self) -> None: ...


class Stream:
    """What a running turn has said: `text` from character `base` on; a new `run` begins anew."""

    def __init__(self, delta: Delta, run: int) -> None:
        self.agent_id = delta.agent_id
        self.run = run
        self.base = delta.offset
        self.text = delta.text
        self._told: dict[int, Told] = {}

    def grow(self, delta: Delta) -> bool:
        """Add `delta`; False where it does not follow, so that a new stream must begin."""
        kept = delta.offset - self.base
        if not 0 < kept <= len(self.text):
            return False
        grown = self.text[:kept] + delta.text
        if not self.text.startswith(grown):  # it may come again after an outage
            if not grown.startswith(self.text):
                return False
            self.text = grown
            self._told.clear()
        return True

    @property
    def end(self) -> int:
        return self.base + len(self.text)

    def since(self, offset: int, board: Board, pipeline_id: str, turn: int) -> Told:
        """The text from `offset` on as one event; the same for all who are as far."""
        known = self._told.get(offset)
        if known is None:
            delta = Delta(turn=turn, agent_id=self.agent_id, offset=offset, text=self.text[offset - self.base :])
            known = self._told[offset] = told(delta_event(board, pipeline_id, delta, clock.now()))
        return known


class Feed:
    """The latest events of one pipeline, and the text of its running turns.

    Attributes:
        board: what all entries up to `head` come to.
        first: `seq` of the oldest event that is kept.
        broken: why the feed has ended, if it has.
    """

    def __init__(self, services: Services, tenant: str, pipeline_id: str) -> None:
        self.pipeline_id = pipeline_id
        self.board = Board()
        self.first = 1
        self.streams: dict[int, Stream] = {}
        self.watchers: set[Watcher] = set()
        self.broken: Exception | None = None
        self._services = services
        self._tenant = tenant
        self._kept: list[Told] = []
        self._ats: list[clock.Micros] = []
        self._characters = 0
        self._runs = 0
        self._away = False
        self._task = asyncio.create_task(self._run(), name=f"feed {pipeline_id}")

    @property
    def head(self) -> int:
        """`seq` of the latest event."""
        return self.board.seq

    @property
    def at_rest(self) -> bool:
        """Whether the pipeline has ended and its last event is told."""
        return has_come_to_rest(self.board)

    def since(self, seq: int, most: int) -> Sequence[Told]:
        """Up to `most` kept events after `seq`, which must not be older than what is kept."""
        start = max(0, seq + 1 - self.first)
        return self._kept[start : start + most]

    def before(self, at: clock.Micros) -> int:
        """The `seq` of the last entry that was made before `at`, as far as entries are kept."""
        if self.board.phases and self.board.phases[0].started_at >= at:
            return 0
        return self.first - 1 + sum(one < at for one in self._ats)

    async def close(self) -> None:
        """Follow no longer."""
        await end(self._task)

    async def _run(self) -> None:
        following = self._services.live.follow(self._tenant, self.pipeline_id, self._read)
        try:
            async with aclosing(following) as happening:
                count = 0
                async for item in happening:
                    if isinstance(item, Entry):
                        self._tell(item)
                    else:
                        self._hear(item)
                    for watcher in self.watchers:
                        watcher.stir()
                    count += 1
                    if count % _AT_ONCE == 0:
                        await asyncio.sleep(0)
        except Exception as error:
            logger.exception("the events of %s cannot be told any further", self.pipeline_id)
            self.broken = error
            for watcher in self.watchers:
                watcher.stir()

    async def _read(self, after: int) -> Sequence[Entry]:
        """Whoever only looks on waits for a ledger that is away."""
        try:
            entries = await self._services.ledger.entries(self._tenant, self.pipeline_id, after=after)
        except Unavailable as error:
            if not self._away:
                logger.warning("the events of %s wait: %s", self.pipeline_id, error.message)
            self._away = True
            return []
        self._away = False
        return entries

    def _tell(self, entry: Entry) -> None:
        apply(self.board, entry)
        event = told(event_of(self.board, entry))
        self._kept.append(event)
        self._ats.append(entry.at)
        self._characters += len(event.text)
        if entry.kind is Kind.TURN_ENDED:
            self.streams.pop(entry.body["turn"], None)
        elif not self.board.open_turns:
            self.streams.clear()  # what was stopped or rewound says no more
        # Half at a time: cutting off the beginning moves all the rest.
        if self._characters > CHARACTERS_KEPT:
            self._forget()

    def _forget(self) -> None:
        gone = 0
        while self._characters > CHARACTERS_KEPT // 2 and gone < len(self._kept) - 1:
            self._characters -= len(self._kept[gone].text)
            gone += 1
        del self._kept[:gone], self._ats[:gone]
        self.first += gone

    def _hear(self, delta: Delta) -> None:
        stream = self.streams.get(delta.turn)
        if stream and stream.grow(delta):
            return
        if stream and 0 < delta.offset - stream.base <= len(stream.text):  # its end is told anew
            text = stream.text[: delta.offset - stream.base] + delta.text
            delta = replace(delta, offset=stream.base, text=text)
        self._runs += 1
        self.streams[delta.turn] = Stream(delta, self._runs)


def sent_events(one: Told) -> bytes:
    """The event as server-sent events frame it; text that is not recorded has no id to come back with."""
    seq = "" if one.seq is None else f"id: {one.seq}\n"
    return f"{seq}event: {one.type}\ndata: {one.text}\n\n".encode()
