"""The command `trilogue` as users meet it: a process with an environment of its own, on a pipe or on a terminal.

An `Installation` is a new home below a short folder, next to which the sockets lie, and the few
variables that a user's shell would have. Whatever still runs in it at the end of a test is killed,
and fails the test.
"""

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fcntl import ioctl
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from trilogue import embedded
from trilogue.embedded.locks import is_held
from trilogue.embedded.place import Kind, Place

COMMAND = str(Path(sys.executable).with_name("trilogue"))
PATIENCE = 120.0
GONE_WITHIN = 10.0


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


class Terminal:
    """A command that runs; on a pipe its output is gathered, on a terminal it can also be seen as it comes."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str], columns: int | None) -> None:
        self._seen = bytearray()
        self._ours: int | None = None
        if columns is None:
            self._process = subprocess.Popen(
                [COMMAND, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            assert self._process.stdout is not None
            self._reading = threading.Thread(target=self._gather, args=(self._process.stdout.fileno(),))
        else:
            ours, theirs = pty.openpty()
            ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
            self._process = subprocess.Popen(
                [COMMAND, *arguments],
                env=environment | {"TERM": "xterm-256color"},
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
                preexec_fn=_own_terminal,  # noqa: PLW1509 - it makes one system call
            )
            os.close(theirs)
            self._ours = ours
            self._reading = threading.Thread(target=self._gather, args=(ours,))
        self._reading.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def seen(self) -> str:
        """What has come so far (on a pipe: on stdout)."""
        return self._seen.decode(errors="replace")

    def shows(self, text: str) -> "Terminal":
        """Wait until `text` has come."""
        until(lambda: text in self.seen or self._process.poll() is not None, PATIENCE)
        assert text in self.seen, f"{text!r} did not come:\n{self.seen}"
        return self

    def press_ctrl_c(self) -> "Terminal":
        """What the keyboard does: `\\x03` to the terminal."""
        assert self._ours is not None
        os.write(self._ours, b"\x03")
        return self

    def send(self, sign: signal.Signals) -> "Terminal":
        self._process.send_signal(sign)
        return self

    def ended(self, within: float = PATIENCE) -> Finished:
        """Wait for the end."""
        try:
            code = self._process.wait(within)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._reading.join()
            pytest.fail(f"it did not end within {within:.0f} s:\n{self.seen}")
        self._reading.join(5)
        err = self._process.stderr.read().decode() if self._process.stderr else ""
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe:
                pipe.close()
        if self._ours is not None:
            os.close(self._ours)
            self._ours = None
        return Finished(code=code, out=self.seen, err=err)

    def _gather(self, descriptor: int) -> None:
        while True:
            with contextlib.suppress(OSError):  # a terminal whose other side is closed answers with EIO
                if not select.select([descriptor], [], [], 0.2)[0]:
                    if self._process.poll() is not None:
                        return
                    continue
                if piece := os.read(descriptor, 65_536):
                    self._seen += piece
                    continue
            return


def _own_terminal() -> None:
    """Make the terminal on stdin the session's own, so that Ctrl-C on it reaches the command."""
    ioctl(0, termios.TIOCSCTTY, 0)


@dataclass(frozen=True, kw_only=True)
class Installation:
    """A home, and how commands run on it."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.root / "home"

    def start(
        self, *arguments: str, columns: int | None = None, env: Mapping[str, str] = MappingProxyType({})
    ) -> Terminal:
        """Begin a command with `env` besides; `columns` puts it on a terminal of that width."""
        return Terminal(arguments, self.environment | dict(env), columns)

    def run(self, *arguments: str, within: float = PATIENCE, env: Mapping[str, str] = MappingProxyType({})) -> Finished:
        """Run a command to its end."""
        return self.start(*arguments, env=env).ended(within)

    def pids(self) -> set[int]:
        """All processes of this installation, by what they were started with and where they work."""
        mark = str(self.root).encode()
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
                if mark in told + os.readlink(process / "cwd").encode() and int(process.name) != os.getpid():
                    found.add(int(process.name))
        return found


def until(condition: Callable[[], bool], within: float = GONE_WITHIN) -> None:
    """Wait for a condition; the test fails when it does not come true in time."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def served_once() -> Iterator[Path]:
    """A `PREFECT_HOME` whose database stands: making it takes as long as most tests that need one."""
    root = Path(tempfile.mkdtemp(prefix="tri-", dir="/tmp"))
    try:
        with embedded.serving(root, redis=False, linger=0.0):
            pass
        until(lambda: not is_held(Place(home=root, kind=Kind.PREFECT).guardian_lock))
        yield root / "prefect"
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def installation(served_once: Path) -> Iterator[Installation]:
    """An installation with short waits, on which Prefect was started before; nothing of it may be left ten seconds
    after its last command."""
    root = Path(tempfile.mkdtemp(prefix="tri-", dir="/tmp"))
    shutil.copytree(served_once, root / "home" / "prefect")
    made = Installation(
        root=root,
        environment={
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(root),
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": str(root),
            "TRILOGUE_HOME": str(root / "home"),
            "TRILOGUE_REHEARSAL_LATENCY": "0.1",
            "TRILOGUE_RETRY_WAIT": "0.05",
        },
    )
    try:
        yield made
        until(lambda: not made.pids(), GONE_WITHIN + 5)
    finally:
        for pid in made.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(root, ignore_errors=True)
