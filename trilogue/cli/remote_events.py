"""A server's events as notices: they say when to read a server's entries, and bear the text of running turns."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from trilogue.cli.server import Connection
from trilogue.entry import Entry
from trilogue.errors import Unavailable
from trilogue.live import Delta, Notice, Signal, Subscription, follow
from trilogue.live.notice import TURN_DELTA

_POLL = 1.0
"""Seconds between two looks at the entries while no events come."""
_RECONNECT = 0.5
_LONGEST_EVENT = 8_000_000


class RemoteLive:
    """What `trilogue.live.Live` is to those who follow, over a server's stream of events."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def follow(
        self,
        tenant: str,  # noqa: ARG002 - the key's to say
        pipeline_id: str,
        read: Callable[[int], Awaitable[Sequence[Entry]]],
    ) -> AsyncGenerator[Entry | Delta]:
        """Every entry, then on as they are committed, with what running turns say between them."""
        return follow(self._subscribed(pipeline_id), read, poll=_POLL)

    @contextlib.asynccontextmanager
    async def _subscribed(self, pipeline_id: str) -> AsyncIterator[Subscription]:
        subscription = Subscription()
        subscription.signal(Signal.LOST)
        listening = asyncio.create_task(self._listen(pipeline_id, subscription))
        try:
            yield subscription
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening

    async def _listen(self, pipeline_id: str, subscription: Subscription) -> None:
        while True:
            # What is refused here, and whatever else is wrong, whoever reads the entries is told.
            with contextlib.suppress(Exception):
                await self._stream(pipeline_id, subscription)
            subscription.signal(Signal.LOST)
            await asyncio.sleep(_RECONNECT)

    async def _stream(self, pipeline_id: str, subscription: Subscription) -> None:
        async with self._connection.stream(f"/api/pipelines/{pipeline_id}/events") as pieces:
            subscription.signal(Signal.RESUMED)
            async for message in _messages(pieces):
                if notice := _notice(message):
                    subscription.deliver(notice, len(message))


async def _messages(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each event; ours are one line each."""
    waiting = b""
    async for piece in pieces:
        *lines, waiting = (waiting + piece).split(b"\n")
        if len(waiting) > _LONGEST_EVENT:
            raise Unavailable("the server sends an event that does not end", code="server_away")
        for line in lines:
            if line.startswith(b"data:"):
                yield line.removeprefix(b"data:").strip()


def _notice(message: bytes) -> Notice | None:
    """The notice that a message stands for; None for what says nothing of a pipeline."""
    try:
        told: Any = json.loads(message)
        data = dict(told["data"])
        seq = told["seq"]
        if told["type"] == TURN_DELTA:
            data.setdefault("agent_id", "")
        elif seq is None:
            return None
        return Notice(
            pipeline_id=str(told["pipeline_id"]),
            seq=None if seq is None else int(seq),
            at=0,
            kind=str(told["type"]),
            actor="",
            attempt=None,
            body=data,
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
