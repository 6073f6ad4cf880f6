"""One open page before a stage: what it has, and what it is told next.

A seat holds no drawings, only how far its page is: one that takes its time gets the latest drawing, never a
queue of old ones.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Self

from trilogue.api.feed import Told
from trilogue.dashboard.stage import Stage
from trilogue.dashboard.streaming import Heard
from trilogue.errors import Unavailable
from trilogue.live.notice import dumps

BEAT = Told(None, "beat", dumps({"type": "beat"}))


class Seat:
    """An endless iterator of batches of messages, for one connection.

    Args:
        seq: the last row of the log that the page has; 0 for none.
        heartbeat: seconds of silence after which there is a sign of life.

    Attributes:
        given_up: whether its page reads too slowly to be told any more.
    """

    def __init__(self, stage: Stage, seq: int, *, heartbeat: float) -> None:
        self.given_up = False
        self._stage = stage
        self._seq = seq
        self._version = 0
        self._heard: dict[int, Heard] = {}
        self._heartbeat = heartbeat
        self._woken = asyncio.Event()
        self._leaving = False

    def stir(self) -> None:
        """There may be something new."""
        self._woken.set()

    def end(self) -> None:
        """Let the iterator end: the server is going away."""
        self._leaving = True
        self._woken.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[Told]:
        while not self._leaving:
            self._woken.clear()
            if self._stage.broken:
                raise Unavailable("this page cannot be kept up; the server's log says why", code="page_broken")
            if news := [*self._parts(), *self._texts()]:
                return news
            try:
                async with asyncio.timeout(self._heartbeat):
                    await self._woken.wait()
            except TimeoutError:
                return [BEAT]
        raise StopAsyncIteration

    def _parts(self) -> Iterator[Told]:
        stage = self._stage
        if stage.version > self._version:
            message = stage.since(self._version, self._seq)
            self._version, self._seq = stage.version, stage.seq
            yield Told(self._seq, "parts", message)

    def _texts(self) -> Iterator[Told]:
        """The text of running turns that the page does not have: to be added, or `anew` in place of what it has."""
        if not self._version:
            return
        running = self._stage.streamed
        self._heard = {turn: heard for turn, heard in self._heard.items() if turn in running}
        for turn, streamed in running.items():
            heard = self._heard.get(turn, Heard())
            anew = heard.run != streamed.run
            if anew or len(streamed.text) > heard.length:
                text = streamed.text if anew else streamed.text[heard.length :]
                told = {"type": "text", "turn": turn, "anew": anew, "text": text}
                self._heard[turn] = Heard(streamed.run, len(streamed.text))
                yield Told(None, "text", dumps(told))
