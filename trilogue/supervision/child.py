"""One program, kept alive: started, listened to, started again when it dies, and ended.

Each life is a process in a session of its own. What it says comes line by line; whether it is ready it
announces itself (`announcing`), or a probe tells.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from trilogue.errors import TrilogueError
from trilogue.supervision.announcing import READY_FD

Say = Callable[[str, str], None]
"""Takes who says it and one line: a program, or `ABOUT` what becomes of one."""

ABOUT = "up"

_LONGEST_LINE = 8_000
_LAST_WORDS = 3
_DRAIN = 0.5
_PROBE_EVERY = 0.2
_LONGEST_PAUSE = 16.0
_STEADY = 30.0
"""Seconds after which a life counts as sound, and earlier deaths are forgotten."""

_QUICK_DEATHS = 5
_REFUSED = 2
"""The exit code of commands that were called wrongly: another try changes nothing."""


class GaveUp(TrilogueError):
    """A program that does not stay alive, or does not become ready."""

    default_code = "gave_up"


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run.

    Attributes:
        descriptors: file descriptors that it inherits.
        ready: whether it does its work now; without, it announces that itself.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: Sequence[int] = ()
    ready: Callable[[], Awaitable[bool]] | None = None


class Child:
    """The lives of one program.

    Args:
        say: is told each line of it, and what becomes of it.
        note: is told what it announces.
        known: is told the process group of each life, when it begins and when it is over.
        unit: seconds of the first pause before another life; each further one is twice as long.
    """

    def __init__(
        self,
        program: Program,
        *,
        say: Say,
        note: Callable[[str], None],
        known: Callable[[int], None],
        unit: float = 1.0,
    ) -> None:
        self.program = program
        self.ready = asyncio.Event()
        self._say = say
        self._note = note
        self._known = known
        self._unit = unit
        self._ending = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)

    @property
    def doing(self) -> str:
        """What it said last, as one line."""
        return " | ".join(self._last_words)

    async def keep(self) -> None:
        """Keep it alive until `end` is called.

        Raises:
            GaveUp: it died five times quickly, or refuses how it was called.
        """
        deaths = 0
        while not self._ending.is_set():
            began = time.monotonic()
            code = await self._life()
            if self._ending.is_set():
                return
            deaths = deaths + 1 if time.monotonic() - began < _STEADY else 1
            if code == _REFUSED or deaths >= _QUICK_DEATHS:
                raise GaveUp(f"{self.program.name} {_ended(code)} {_often(deaths)}; it said: {self.doing or 'nothing'}")
            pause = min(self._unit * 2 ** (deaths - 1), _LONGEST_PAUSE)
            self._say(ABOUT, f"{self.program.name} {_ended(code)}; starting it again in {pause:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)

    def end(self, sign: signal.Signals) -> None:
        """Let no other life follow, and send `sign`: SIGKILL to its whole session."""
        self._ending.set()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if sign is signal.SIGKILL else os.kill)(self._process.pid, sign)

    async def _life(self) -> int:
        """One process from its start to its end; its exit code."""
        async with _pipe() as (out, said), _pipe() as (announce, announced):
            process = self._process = await asyncio.create_subprocess_exec(
                *self.program.argv,
                env={**self.program.environment, READY_FD: str(announce)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=(announce, *self.program.descriptors),
                start_new_session=True,
            )
            self._known(process.pid)
            os.close(out)
            os.close(announce)
            watching = [asyncio.create_task(work) for work in (self._listen(announced), self._probe())]
            speaking = asyncio.create_task(self._speak(said))
            try:
                if self._ending.is_set():
                    self.end(signal.SIGTERM)  # it was asked to end while it began
                return await process.wait()
            finally:
                self._process = None
                self._known(process.pid)
                self.ready.clear()
                # What it started may hold its output open for longer than it lived.
                await asyncio.wait([speaking], timeout=_DRAIN)
                for task in (*watching, speaking):
                    task.cancel()

    async def _speak(self, said: asyncio.StreamReader) -> None:
        async for line in _lines(said):
            self._last_words.append(line)
            self._say(self.program.name, line)

    async def _listen(self, announced: asyncio.StreamReader) -> None:
        async for line in _lines(announced):
            if line:
                self._note(line)
            else:
                self._became_ready()

    async def _probe(self) -> None:
        while self.program.ready is not None and not self.ready.is_set():
            if await self.program.ready():
                self._became_ready()
            await asyncio.sleep(_PROBE_EVERY)

    def _became_ready(self) -> None:
        self.ready.set()
        self._say(ABOUT, f"{self.program.name} is ready")


@asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[int, asyncio.StreamReader]]:
    """A pipe: the end to write to, which whoever hands it on closes, and a reader of the other."""
    reading, writing = os.pipe()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", buffering=0)
    )
    try:
        yield writing, reader
    finally:
        transport.close()


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines as text, those that are too long in pieces; not `readline`, which refuses them."""
    rest = b""
    while piece := await reader.read(65_536):
        *whole, rest = (rest + piece).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            whole, rest = [*whole, rest], b""
        for line in whole:
            for start in range(0, max(len(line), 1), _LONGEST_LINE):
                yield line[start : start + _LONGEST_LINE].decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


def _ended(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _often(deaths: int) -> str:
    return "at once" if deaths == 1 else f"{deaths} times in a row"
