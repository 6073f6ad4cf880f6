"""Posts what was committed to Redis, without ever making the one who committed it wait.

What cannot be posted is not kept: the poster remembers only which pipelines are behind, and
fills each from the ledger when it can.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from trilogue import clock
from trilogue.entry import Entry, Kind
from trilogue.live import keys, script
from trilogue.live.connection import FAULTS, pause, unavailable
from trilogue.live.ending import end
from trilogue.live.notice import Delta

logger = logging.getLogger(__name__)

Backfill = Callable[[str, str, int], Awaitable[Sequence[Entry]]]
"""`(tenant, pipeline_id, after_seq)`: all entries of the pipeline after that one, in order, from the ledger."""

ENTRIES_HELD = 4096
"""Entries that may wait to be sent, of all pipelines together; beyond it a pipeline counts as behind."""
TURNS_HELD = 1024
"""Running turns whose streamed text may wait to be sent; beyond it text is dropped."""
DELTA_PAUSE = 0.05
"""Seconds between two sendings of streamed text: smooth for eyes, and no burden on the entries."""
FILLS_AT_ONCE = 16
"""Pipelines that are filled from the ledger at the same time."""
BACKFILL_TIMEOUT = 5.0
"""Seconds the ledger may take for one of them, while all the others wait."""
LAST_ROUND = 0.5
"""Seconds that sending may still take when the process closes; who wants more has called `flush`."""

_Place = tuple[str, str]


@dataclass(kw_only=True)
class _Lane:
    """One pipeline that has something to be posted.

    Attributes:
        since: ticket of its oldest post that is not out; newest: of its latest.
        behind: its entries are to come from the ledger; then `entries` stays empty.
        due: when (loop time) to fill it; failures: tries in a row that did not.
    """

    tenant: str
    pipeline_id: str
    since: int
    newest: int
    entries: list[Entry] = field(default_factory=list)
    behind: bool = False
    due: float = 0.0
    failures: int = 0


class Poster:
    """One task that posts for the whole process. Use as an async context manager."""

    def __init__(self, client: Redis, *, board_ttl: float, backfill: Backfill) -> None:
        """`board_ttl`: seconds that a pipeline's keys outlive its last entry."""
        self._client = client
        self._ttl_ms = round(board_ttl * 1000)
        self._backfill = backfill
        self._lanes: dict[_Place, _Lane] = {}
        self._held = 0
        self._ticket = 0
        self._deltas: dict[tuple[str, str, int], Delta] = {}
        self._deltas_due = 0.0
        self._away = False
        self._closing = False
        self.may_stream: Callable[[str, str], bool] = lambda _tenant, _pipeline_id: True
        """Asked when streamed text is about to be sent; entries need no leave, the ledger has taken them."""
        self._woken = asyncio.Event()
        self._settled = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="poster")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._closing = True
        self._woken.set()
        if not self._away:
            # Cut off in the middle of sending, a connection would outlive us half closed.
            await asyncio.wait([self._task], timeout=LAST_ROUND)
        await end(self._task)

    def post(self, entries: Sequence[Entry]) -> None:
        """Post the entries of one commit. Returns at once and never raises."""
        for entry in entries:
            if entry.kind is Kind.TURN_ENDED:
                self._deltas.pop((entry.tenant, entry.pipeline_id, entry.body["turn"]), None)
            self._add(entry)
        self._woken.set()

    def _add(self, entry: Entry) -> None:
        self._ticket += 1
        place = (entry.tenant, entry.pipeline_id)
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = _Lane(
                tenant=entry.tenant,
                pipeline_id=entry.pipeline_id,
                since=self._ticket,
                newest=self._ticket,
                behind=self._away,
            )
        lane.newest = self._ticket
        if lane.behind:
            return
        if self._held >= ENTRIES_HELD or entry.kind is Kind.REWOUND:
            self._fall_behind(lane)
            return
        lane.entries.append(entry)
        self._held += 1

    def delta(self, tenant: str, pipeline_id: str, delta: Delta) -> None:
        """Publish streamed text of a running turn, soon or never. Returns at once and never raises."""
        place = (tenant, pipeline_id, delta.turn)
        former = self._deltas.get(place)
        if self._away or (former is None and len(self._deltas) >= TURNS_HELD):
            return
        self._deltas[place] = (former and former.followed_by(delta)) or delta
        self._woken.set()

    async def flush(self, timeout: float) -> bool:
        """Wait until everything posted so far is out, or Redis is away, or `timeout` seconds are over.

        Returns:
            Whether everything is out.
        """
        wanted = self._ticket

        def out() -> bool:
            return all(lane.since > wanted for lane in self._lanes.values())

        try:
            async with asyncio.timeout(timeout), self._settled:
                await self._settled.wait_for(lambda: self._away or out())
        except TimeoutError:
            pass
        return out()

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._something_due()
            if self._closing:
                return
            try:
                await self._round()
            except FAULTS as error:
                self._lose(error)
            else:
                self._regain()
            async with self._settled:
                self._settled.notify_all()
            if self._away:
                await asyncio.sleep(pause(failures))
                failures += 1
            else:
                failures = 0

    def _lose(self, error: BaseException) -> None:
        if not self._away:
            logger.warning("pipelines go on from the ledger alone: %s", unavailable(self._client, error))
        self._away = True
        self._deltas.clear()
        for lane in self._lanes.values():
            self._fall_behind(lane)

    def _regain(self) -> None:
        if self._away:
            logger.info("Redis is back")
        self._away = False

    async def _something_due(self) -> None:
        while not self._closing and (rest := self._rest()) > 0:
            self._woken.clear()
            try:
                async with asyncio.timeout(None if rest == math.inf else rest):
                    await self._woken.wait()
            except TimeoutError:
                pass

    def _rest(self) -> float:
        """Seconds until there is something to do."""
        if any(not lane.behind for lane in self._lanes.values()):
            return 0
        moments = [lane.due for lane in self._lanes.values()]
        if self._deltas:
            moments.append(self._deltas_due)
        return min(moments, default=math.inf) - asyncio.get_running_loop().time()

    async def _round(self) -> None:
        """Send everything that waits in one round trip, and fill some of what is behind."""
        taken = self._ticket
        now = asyncio.get_running_loop().time()
        late = [lane for lane in self._lanes.values() if lane.behind and lane.due <= now][:FILLS_AT_ONCE]
        ready = [(lane, self._take(lane)) for lane in self._lanes.values() if not lane.behind]
        filled = await self._from_ledger(late) if late else []
        deltas: list[script.Command] = []
        if self._deltas and self._deltas_due <= now:
            at = clock.now()
            deltas = [
                script.streamed(*place[:2], delta, at)
                for place, delta in self._deltas.items()
                if self.may_stream(*place[:2])
            ]
            self._deltas.clear()
            self._deltas_due = now + DELTA_PAUSE
        await self._send([*ready, *filled], deltas, taken)

    def _take(self, lane: _Lane) -> list[Entry]:
        entries, lane.entries = lane.entries, []
        self._held -= len(entries)
        return entries

    async def _from_ledger(self, lanes: Sequence[_Lane]) -> list[tuple[_Lane, Sequence[Entry]]]:
        """What each lane lacks; a lane whose entries cannot be had is put off."""
        async with self._client.pipeline(transaction=False) as pipe:
            for lane in lanes:
                pipe.hget(keys.of_pipeline(lane.tenant, lane.pipeline_id).state, "seq")
            posted = await pipe.execute(raise_on_error=False)
        found = await asyncio.gather(*map(self._lacking, lanes, posted))
        return [(lane, entries) for lane, entries in zip(lanes, found, strict=True) if entries is not None]

    async def _lacking(self, lane: _Lane, posted: Any) -> Sequence[Entry] | None:
        if isinstance(posted, ResponseError):
            self._put_off(lane, posted)
            return None
        try:
            async with asyncio.timeout(BACKFILL_TIMEOUT):
                entries = await self._backfill(lane.tenant, lane.pipeline_id, int(posted or 0))
                if posted and any(entry.kind is Kind.REWOUND for entry in entries):
                    # What was undone lies on the board: it is made anew.
                    await self._client.delete(*keys.of_pipeline(lane.tenant, lane.pipeline_id).declared)
                    entries = await self._backfill(lane.tenant, lane.pipeline_id, 0)
                return entries
        except Exception as error:  # noqa: BLE001  whatever is wrong with one pipeline must not keep the others
            self._put_off(lane, error)
            return None

    async def _send(
        self, loads: Sequence[tuple[_Lane, Sequence[Entry]]], deltas: Sequence[script.Command], taken: int
    ) -> None:
        commands: list[script.Command] = []
        spans: list[tuple[_Lane, int, int]] = []
        for lane, entries in loads:
            start = len(commands)
            try:
                commands.extend(script.posts(entries, ttl_ms=self._ttl_ms))
            except Exception as error:  # noqa: BLE001  as above; only a broken body comes here
                del commands[start:]
                self._put_off(lane, error)
                continue
            spans.append((lane, start, len(commands)))
        replies = await script.execute(self._client, [*commands, *deltas])
        for lane, start, stop in spans:
            self._settle(lane, replies[start:stop], taken)

    def _settle(self, lane: _Lane, replies: Sequence[Any], taken: int) -> None:
        """Record what became of a lane's load, of which every post up to ticket `taken` was a part."""
        for reply in replies:
            if isinstance(reply, ResponseError):
                self._put_off(lane, reply)
                return
            if not reply[0]:
                if lane.behind:
                    self._put_off(lane, None)  # the ledger did not close the gap, or Redis was emptied meanwhile
                else:
                    self._fall_behind(lane)
                return
        lane.failures = 0
        if lane.newest <= taken:
            del self._lanes[lane.tenant, lane.pipeline_id]
            return
        lane.since = taken + 1

    def _fall_behind(self, lane: _Lane) -> None:
        self._take(lane)
        lane.behind = True
        lane.due = 0.0

    def _put_off(self, lane: _Lane, error: BaseException | None) -> None:
        self._fall_behind(lane)
        lane.due = asyncio.get_running_loop().time() + pause(lane.failures)
        if error and not lane.failures:
            logger.warning("the live board of %s is behind: %s", lane.pipeline_id, type(error).__name__)
        lane.failures += 1
