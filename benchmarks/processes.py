"""Child processes that end with whoever started them, even when that one is killed."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it has no types

from trilogue.embedded.server import plain_environment

ROOT = Path(__file__).parent.parent
_PR_SET_PDEATHSIG = 1
_PATIENCE = 15.0


def environment(own: Mapping[str, str]) -> dict[str, str]:
    """`own` over the few plain variables: nothing that the user configured changes what is measured."""
    return plain_environment() | dict(own)


@contextmanager
def started(
    command: Sequence[str | Path],
    *,
    own: Mapping[str, str] | None = None,
    stdout: int = subprocess.DEVNULL,
    log: Path | None = None,
    user: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process for as long as the block lasts; what it says on stderr goes into `log`."""
    with (log or Path(os.devnull)).open("ab") as errors:
        process = subprocess.Popen(
            command,
            cwd="/" if user else ROOT,
            env=environment(own or {}),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=errors,
            user=user,
            preexec_fn=_end_with(os.getpid()),  # noqa: PLW1509 - the child calls nothing that takes a lock
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def _end_with(parent: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def until(condition: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Wait for `condition`. Raises `TimeoutError`, which says `what` did not happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.05)


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time that these processes and their children have used so far."""
    families = [[psutil.Process(pid), *psutil.Process(pid).children(recursive=True)] for pid in pids]
    return sum(sum(process.cpu_times()[:4]) for family in families for process in family)
