"""All programs of one command: begun together, kept alive, ended together."""

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from trilogue.supervision import reaper
from trilogue.supervision.child import Child, GaveUp, Program, Say

READY_WITHIN = 120.0
ENDED_WITHIN = 8.0
"""Seconds from the first request to end until whatever is left is killed."""

_MARK = "TRILOGUE_UP_MARK"
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def supervise(
    programs: Sequence[Program],
    *,
    environment: Mapping[str, str],
    say: Say,
    ready: Callable[[Sequence[str]], None],
    ending: Callable[[], None] = lambda: None,
    ready_within: float = READY_WITHIN,
    ended_within: float = ENDED_WITHIN,
    unit: float = 1.0,
) -> signal.Signals:
    """Run programs until a signal asks to end; the first asks them to, a second ends them at once.

    Whatever happens to the calling process, nothing that was started here outlives it for more than two
    seconds (five, where it refuses to end).

    Args:
        environment: of all programs, below what each has of its own.
        say: is told each line of each program, and what becomes of it.
        ready: is called once, when all are ready, with what they announced.
        ending: is called once, when all are about to be ended.

    Raises:
        GaveUp: a program does not stay alive, or was not ready in time. All others were ended.
    """
    notes: list[str] = []
    with _receiving() as signals, _reaping() as (mark, known):
        shared = {**environment, _MARK: mark}
        children = [
            Child(
                replace(program, environment={**shared, **program.environment}),
                say=say,
                note=notes.append,
                known=known,
                unit=unit,
            )
            for program in programs
        ]
        lives = [asyncio.create_task(child.keep()) for child in children]
        asked = asyncio.create_task(signals.get())
        readied = asyncio.create_task(_all_ready(children, ready_within))
        try:
            done, _ = await asyncio.wait({*lives, asked, readied}, return_when=asyncio.FIRST_COMPLETED)
            if done == {readied} and readied.exception() is None:
                ready(notes)
                done, _ = await asyncio.wait({*lives, asked}, return_when=asyncio.FIRST_COMPLETED)
            for ended in done - {asked}:
                ended.result()
            return await asked
        finally:
            asked.cancel()
            readied.cancel()
            ending()
            await _end(children, lives, signals, ended_within)


async def _all_ready(children: Sequence[Child], within: float) -> None:
    try:
        async with asyncio.timeout(within):
            for child in children:
                await child.ready.wait()
    except TimeoutError:
        late = next(child for child in children if not child.ready.is_set())
        raise GaveUp(
            f"{late.program.name} was not ready within {within:g} s; it said: {late.doing or 'nothing'}"
        ) from None


async def _end(
    children: Sequence[Child],
    lives: Sequence[asyncio.Task[None]],
    signals: "asyncio.Queue[signal.Signals]",
    within: float,
) -> None:
    for child in children:
        child.end(signal.SIGTERM)
    gone: asyncio.Future[Any] = asyncio.gather(*lives, return_exceptions=True)
    again: asyncio.Future[Any] = asyncio.create_task(signals.get())
    await asyncio.wait([gone, again], timeout=within, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    for child in children:
        child.end(signal.SIGKILL)
    await gone


@contextmanager
def _receiving() -> Iterator["asyncio.Queue[signal.Signals]"]:
    """The signals that ask to end, in the order in which they come."""
    loop = asyncio.get_running_loop()
    received: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for sign in _ENDING:
        loop.add_signal_handler(sign, received.put_nowait, sign)
    try:
        yield received
    finally:
        for sign in _ENDING:
            loop.remove_signal_handler(sign)


@contextmanager
def _reaping() -> Iterator[tuple[str, Callable[[int], None]]]:
    """What marks the programs' environments, and whom to tell their process groups; leaving ends what is left."""
    mark = secrets.token_hex(16)
    reading, writing = os.pipe()
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-I", str(Path(reaper.__file__)), f"{_MARK}={mark}"],
        stdin=reading,
        stdout=subprocess.DEVNULL,
        cwd="/",
        env={},
        start_new_session=True,
    )
    os.close(reading)

    def known(group: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(writing, f"{group}\n".encode())

    try:
        yield mark, known
    finally:
        os.close(writing)
        process.wait()
