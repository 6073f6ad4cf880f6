"""What a guardian needs to know of a server, and starting one so that it cannot outlive its guardian."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from trilogue.embedded.locks import Lock

_INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_RUNTIME_DIR",
    "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH",
)  # fmt: skip

_PR_SET_PDEATHSIG = 1
_PROBE_TIMEOUT = 1.0
_TERM_GRACE = 3.0


def plain_environment() -> dict[str, str]:
    """The few variables that guardian and servers get: nothing that could be a secret or configure them."""
    return {name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith("LC_")}


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How to start a server process."""

    argv: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    descriptors: Sequence[int] = ()


class Server(Protocol):
    """One kind of server, as its guardian sees it."""

    @property
    def address(self) -> str:
        """Where users reach it; known once `prepare` was called."""

    def prepare(self) -> Launch:
        """Get ready for the next start, also after a life that ended badly."""

    def answers(self) -> bool:
        """Whether it serves now; takes a second at most."""

    def reachable(self) -> bool:
        """Whether users can still get at a living server; cheap."""

    def served(self) -> None:
        """Called when it has answered for the first time after a start."""

    def mend(self) -> bool:
        """After a first start that failed: whether something was put right, so that another try makes sense."""

    def tidy(self) -> None:
        """Remove what is of no use once the server has ended."""


def start(launch: Launch, life: Lock) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own.

    It inherits `life` and writes its pid into that file: a held lock whose guardian is gone
    means that exactly this process was left over (`end_leftover`). On Linux the kernel kills
    it with its guardian anyway.
    """
    os.ftruncate(life.fileno(), 0)
    return subprocess.Popen(  # noqa: S603 - what our own servers asked for
        launch.argv,
        cwd=launch.folder,
        env=plain_environment() | dict(launch.environment),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(life.fileno(), *launch.descriptors),
        preexec_fn=_tie_to_guardian(life.fileno()),  # noqa: PLW1509 - the guardian has one thread
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server: asked first, killed when it is still there after three seconds."""
    for sign, patience in ((signal.SIGTERM, _TERM_GRACE), (signal.SIGKILL, None)):
        if process.poll() is not None:
            return
        os.killpg(process.pid, sign)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def end_leftover(life: Lock) -> None:
    """Kill the server whose guardian was killed, where the kernel has not done so. The lock is held by it alone."""
    recorded = os.pread(life.fileno(), 20, 0)
    if recorded:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(recorded), signal.SIGKILL)


def ask(family: socket.AddressFamily, address: str | tuple[str, int], question: bytes) -> bytes:
    """The first bytes of a server's answer, or nothing when it does not answer within a second."""
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PROBE_TIMEOUT)
        try:
            connection.connect(address)
            connection.sendall(question)
            return connection.recv(64)
        except OSError:
            return b""


def _tie_to_guardian(life: int) -> Callable[[], None]:
    guardian = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def in_child() -> None:
        os.pwrite(life, str(os.getpid()).encode(), 0)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guardian:  # it died before the kernel knew
            os._exit(1)

    return in_child
