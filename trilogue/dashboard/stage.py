"""One pipeline as all its open pages see it: followed once, drawn once, however many look."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Coroutine, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from trilogue import clock
from trilogue.dashboard.breaker import Breaker, breaker_of
from trilogue.dashboard.drawing import draw, log_row
from trilogue.dashboard.past import flow_run_url
from trilogue.dashboard.scene import Scene
from trilogue.dashboard.story import Story
from trilogue.dashboard.streaming import Streamed
from trilogue.entry import Entry, Kind
from trilogue.errors import TrilogueError, Unavailable
from trilogue.ledger import PipelineRow
from trilogue.ledger.opening import TENANT
from trilogue.live import Delta
from trilogue.live.ending import end
from trilogue.live.notice import dumps
from trilogue.services import Services

logger = logging.getLogger(__name__)

FRAME = 0.04
"""Seconds between two drawings: what happens meanwhile is drawn together."""
TICK = 1.0
"""Seconds between two drawings while time itself shows: running turns grow, a lease runs out."""
STILL_LOOK = 0.1
"""Seconds between two looks whether a pipeline that has ended stands still."""
ROWS_AT_ONCE = 200
"""Rows of the log that a page is given at once; older ones it asks for."""

_AT_ONCE = 50
"""Entries that are taken before others get their turn of the event loop."""
_CHANGE_THE_ROW = {Kind.STATUS, Kind.PHASE_STARTED, Kind.ROUND_STARTED, Kind.RESUMED, Kind.REWOUND, Kind.STOPPED}


class Watcher(Protocol):
    """Who wants to know that a stage has something new."""

    def stir(self) -> None: ...


class Stage:
    """Follows a pipeline until it is closed.

    Attributes:
        streamed: the text of running turns, by turn.
        version: raised with each drawing that changed anything; 0 before the first one.
        broken: why the stage has ended, if it has.
    """

    def __init__(self, services: Services, row: PipelineRow) -> None:
        self.pipeline_id = row.pipeline_id
        self.story = Story()
        self.streamed: dict[int, Streamed] = {}
        self.version = 0
        self.broken: Exception | None = None
        self.watchers: set[Watcher] = set()
        self._services = services
        self._row = row
        self._flow_run: tuple[str | None, str | None] = (None, None)
        self._looked_at = 0.0
        self._breaker: Breaker | None = None
        self._asked_at = 0.0
        self._slow_drawn_at = -math.inf
        self._rows: list[str] = []
        self._rows_told = -1
        self._parts: dict[str, tuple[int, str]] = {}
        self._messages: dict[tuple[int, int], str] = {}
        self._happened = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._guarded(self._follow()), name=f"stage {row.pipeline_id}"),
            asyncio.create_task(self._guarded(self._keep_drawn()), name=f"drawing {row.pipeline_id}"),
        ]

    async def close(self) -> None:
        """Follow no longer."""
        for task in self._tasks:
            await end(task)

    @property
    def seq(self) -> int:
        """Of the latest entry that is drawn."""
        return max(0, self._rows_told)

    def since(self, version: int, seq: int) -> str:
        """The message with every part that changed after `version`, and the log's rows after `seq`.

        A page that has another row than `rows_after` as its last one takes these as its only ones.
        """
        message = self._messages.get((version, seq))
        if message is None:
            head = self.seq
            first = max(seq if seq <= head else 0, head - ROWS_AT_ONCE)
            changed = {name: html for name, (since, html) in self._parts.items() if since > version}
            told = {"type": "parts", "seq": head, "parts": changed, "rows": self._rows[first:head]}
            message = self._messages[(version, seq)] = dumps({**told, "rows_after": first})
        return message

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            logger.exception("the page of %s cannot be kept up", self.pipeline_id)
            self.broken = error
            self._stir()

    async def _follow(self) -> None:
        async with aclosing(self._services.live.follow(TENANT, self.pipeline_id, self._read)) as happening:
            async for item in happening:
                if isinstance(item, Delta):
                    self._hear(item)
                    continue
                self._take(item)
                if item.seq % _AT_ONCE == 0:
                    await asyncio.sleep(0)

    async def _read(self, after: int) -> Sequence[Entry]:
        """Whoever only looks on waits for a ledger that is away."""
        try:
            return await self._services.ledger.entries(TENANT, self.pipeline_id, after=after)
        except Unavailable:
            return []

    def _take(self, entry: Entry) -> None:
        self.story.add(entry)
        self._rows.append(log_row(self.story.board, entry))
        if entry.kind is Kind.TURN_ENDED:
            self.streamed.pop(entry.body["turn"], None)
        elif not self.story.board.open_turns or self.story.board.status.ended:
            self.streamed.clear()
        if entry.kind in _CHANGE_THE_ROW:
            self._looked_at = 0.0
            self._slow_drawn_at = -math.inf
        self._happened.set()

    def _hear(self, delta: Delta) -> None:
        if delta.turn in self.story.board.open_turns:
            self.streamed.setdefault(delta.turn, Streamed()).grow(delta)
            self._stir()

    async def _keep_drawn(self) -> None:
        """Draw what happened, at most once a frame; and each second while time shows."""
        recorded = self._row.head_seq
        while True:
            if self.story.board.seq >= recorded:
                await self._look()
                await self._ask()
                self._redraw()
            await asyncio.sleep(FRAME)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._happened.wait()
            self._happened.clear()

    async def _look(self) -> None:
        """The pipeline's row, which changes also without an entry: leased, queued, at rest."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at < self._look_every():
            return
        with contextlib.suppress(TrilogueError):
            self._row = await self._services.ledger.get_pipeline(TENANT, self.pipeline_id)
            if self._row.flow_run_id != self._flow_run[0]:
                self._flow_run = (self._row.flow_run_id, await flow_run_url(self._row))
            self._looked_at = now

    async def _ask(self) -> None:
        """The breaker of what the pipeline calls, while it is at work."""
        now = asyncio.get_running_loop().time()
        if not self._row.leased or self.story.board.status.ended:
            self._breaker = None
        elif now - self._asked_at >= TICK:
            self._asked_at = now
            self._breaker = await breaker_of(self._services, self.story.board)

    def _look_every(self) -> float:
        return STILL_LOOK if self.story.board.status.ended else TICK / 2

    def _pause(self) -> float | None:
        """Seconds until the next drawing, whatever happens; None where nothing changes by itself."""
        if not self.story.board.status.ended:
            return TICK
        still = self._row.still_since is not None and self._row.head_seq >= self.story.board.seq
        return None if still else STILL_LOOK

    def _redraw(self) -> None:
        scene = Scene(
            story=self.story,
            row=self._row,
            now=clock.now(),
            breaker=self._breaker,
            flow_run_url=self._flow_run[1],
        )
        now = asyncio.get_running_loop().time()
        slow = self.story.board.status.ended or now - self._slow_drawn_at >= TICK
        if slow:
            self._slow_drawn_at = now
        parts = draw(scene, slow=slow)
        changed = {name: html for name, html in parts.items() if self._parts.get(name, (0, None))[1] != html}
        if not changed and len(self._rows) == self._rows_told:
            return
        self.version += 1
        self._rows_told = len(self._rows)
        self._parts |= {name: (self.version, html) for name, html in changed.items()}
        self._messages.clear()
        self._stir()

    def _stir(self) -> None:
        for watcher in self.watchers:
            watcher.stir()
