"""What a worker would record of a pipeline's agents, at a steady pace: turns of BETA, and ALPHA's text as it comes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from trilogue import clock
from trilogue.board import fold
from trilogue.entry import Draft, Entry, Kind
from trilogue.ledger import Fence
from trilogue.ledger.opening import TENANT
from trilogue.live import Delta
from trilogue.services import Services

COMMITS = 5
"""A second; each second one of them is two entries, what a turn said and its end."""
DELTAS = 10
"""Pieces of text a second."""
_WORDS = "and then they agreed "
_SAID = "A word of usual length, **plainly** said. " * 8


@dataclass(kw_only=True)
class Written:
    """When what was written, in seconds since the epoch.

    Attributes:
        entries: by the last `seq` of a commit, when it was committed.
        text: by its length so far, when the running turn had said so much.
    """

    entries: dict[int, float] = field(default_factory=dict)
    text: dict[int, float] = field(default_factory=dict)


class Scribe:
    """Goes on with a pipeline that `write_long_story` has left with two turns open.

    Attributes:
        streaming: the number of the turn whose text is told.
    """

    def __init__(self, services: Services, pipeline_id: str, entries: Sequence[Entry]) -> None:
        alpha, beta = fold(entries).open_turns.values()
        of_beta = [entry for entry in reversed(entries) if entry.actor == beta.agent_id]
        self._begun = next(dict(entry.body) for entry in of_beta if entry.kind is Kind.TURN_BEGUN)
        self._ended = next(dict(entry.body) for entry in of_beta if entry.kind is Kind.TURN_ENDED)
        self._services = services
        self._fence = Fence(tenant=TENANT, pipeline_id=pipeline_id, attempt=1)
        self._ended["actions"] = ["message"]
        self._agent, self._turn, self._open = beta.agent_id, beta.turn, True
        self._streaming = alpha
        self.pipeline_id = pipeline_id
        self.streaming = alpha.turn
        self._length = 0
        services.live.poster.may_stream = lambda *_: True  # the lease is whoever's wrote the story

    @classmethod
    async def of(cls, services: Services, pipeline_id: str) -> "Scribe":
        """Who writes a pipeline on, from a live board that has all of it."""
        entries = await services.ledger.entries(TENANT, pipeline_id)
        services.live.poster.post(entries)
        assert await services.live.poster.flush(timeout=10)
        return cls(services, pipeline_id, entries)

    async def write(self, seconds: float) -> Written:
        """Write for so long."""
        written = Written()
        async with asyncio.TaskGroup() as writing:
            writing.create_task(_paced(seconds, COMMITS, lambda: self._commit(written)))
            writing.create_task(_paced(seconds, DELTAS, lambda: self._say(written)))
        return written

    async def _commit(self, written: Written) -> None:
        """BETA's open turn ends, with a message; or else its next one begins."""
        if self._open:
            message = {"id": f"m-{self._turn}", "to": "ALL", "content": _SAID, "turn": self._turn}
            drafts = [self._draft(Kind.MESSAGE, message), self._draft(Kind.TURN_ENDED, self._ended)]
        else:
            self._turn += 1
            drafts = [self._draft(Kind.TURN_BEGUN, self._begun)]
        self._open = not self._open
        entries = await self._services.ledger.append(self._fence, drafts, at=clock.now())
        written.entries[entries[-1].seq] = time.time()
        self._services.live.poster.post(entries)

    def _draft(self, kind: Kind, body: dict[str, Any]) -> Draft:
        return Draft(kind=kind, actor=self._agent, body={**body, "turn": self._turn})

    async def _say(self, written: Written) -> None:
        turn = self._streaming
        delta = Delta(turn=turn.turn, agent_id=turn.agent_id, offset=self._length, text=_WORDS)
        self._length += len(_WORDS)
        written.text[self._length] = time.time()
        self._services.live.poster.delta(TENANT, self.pipeline_id, delta)


async def _paced(seconds: float, rate: float, step: Callable[[], Awaitable[None]]) -> None:
    """Take so many steps a second, each at its time whatever the one before it took."""
    begin = time.monotonic()
    for number in range(round(seconds * rate)):
        await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
        await step()
