"""One open list of pipelines: it hears that there is news, not what, and looks by itself."""

import asyncio
from collections.abc import Sequence
from typing import Final, Self

from trilogue.api.feed import Told
from trilogue.dashboard.seat import BEAT
from trilogue.live.notice import dumps

PAUSE: Final = 0.5
"""Seconds between two news: whatever happens meanwhile is one."""

_NEWS = Told(None, "news", dumps({"type": "news"}))


class Lookout:
    """An endless iterator of batches of messages, for one connection; the first is news.

    Args:
        heartbeat: seconds of silence after which there is a sign of life.

    Attributes:
        given_up: whether its page reads too slowly to be told any more.
    """

    def __init__(self, *, heartbeat: float) -> None:
        self.given_up = False
        self._heartbeat = heartbeat
        self._woken = asyncio.Event()
        self._woken.set()  # between the page's drawing and its connection there may have been something
        self._leaving = asyncio.Event()
        self._quiet_until = 0.0

    def news(self, pipeline_id: str, seq: int) -> None:
        """A pipeline is at `seq`."""
        del pipeline_id, seq
        self._woken.set()

    def end(self) -> None:
        """Let the iterator end: the server is going away."""
        self._leaving.set()
        self._woken.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[Told]:
        now = asyncio.get_running_loop().time
        if not await _within(self._heartbeat, self._woken):
            return [BEAT]
        await _within(self._quiet_until - now(), self._leaving)
        if self._leaving.is_set():
            raise StopAsyncIteration
        self._woken.clear()
        self._quiet_until = now() + PAUSE
        return [_NEWS]


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Wait for an event, but no longer than that; whether it came."""
    if seconds > 0 and not event.is_set():
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass
    return event.is_set()
