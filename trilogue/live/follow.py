"""Follows one pipeline: everything from the ledger, at once when Redis gives notice, by polling otherwise.

Entries come from the ledger only; notices merely say when to look. Hence no gap and no
repeat, whatever happens to Redis.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from trilogue.entry import Entry, Kind
from trilogue.live.bus import Subscription
from trilogue.live.notice import Delta, Notice, Signal, delta_of

Read = Callable[[int], Awaitable[Sequence[Entry]]]
"""`(after_seq)`: all entries of the pipeline after that one, in order."""

POLL = 0.25
"""Seconds between two looks into the ledger while no notices come."""
LONGEST_TRUST = 2.0
"""Seconds between two looks while notices do come: whoever committed may have died before it could post."""


async def follow(
    subscription: AbstractAsyncContextManager[Subscription],
    read: Read,
    *,
    after: int = 0,
    poll: float = POLL,
    running: Callable[[], Awaitable[Sequence[Delta]]] | None = None,
) -> AsyncGenerator[Entry | Delta]:
    """Every entry after `after`, each once and in order, then on as they are committed, for ever.

    Between entries come the deltas of running turns, as far as they get through. Stop iterating
    when you have seen enough; `contextlib.aclosing` frees the subscription at that very moment.

    Args:
        running: what running turns have streamed so far, asked whenever notices begin to come.

    Raises:
        whatever `read` raises.
    """
    ended: set[int] = set()
    announced = 0
    trusted = joining = False
    async with subscription as notices:
        while True:
            for entry in await read(after):
                after = entry.seq
                if entry.kind is Kind.TURN_ENDED:
                    ended.add(entry.body["turn"])
                yield entry
            if joining and running:
                for delta in await running():
                    if delta.turn not in ended:
                        yield delta
            joining = False
            # A notice may outrun a ledger that is read from a replica: then look again soon.
            look_at = _now() + (LONGEST_TRUST if trusted and announced <= after else poll)
            while (item := await _next(notices, look_at)) is not None:
                if isinstance(item, Signal):
                    joining = item is Signal.RESUMED
                    trusted = joining or (trusted and item is Signal.LAGGED)
                    break
                if item.seq is not None and item.seq > after:
                    announced = item.seq
                    break
                streamed = delta_of(item)
                if streamed and streamed.turn not in ended:
                    yield streamed


async def _next(notices: Subscription, until: float) -> Notice | Signal | None:
    """The next item; None when none has come until then, or there are so many that it is past then."""
    if _now() >= until:
        return None
    try:
        async with asyncio.timeout_at(until):
            return await anext(notices)
    except TimeoutError:
        return None


def _now() -> float:
    return asyncio.get_running_loop().time()
