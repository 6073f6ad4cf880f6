"""Where one embedded server and its guardian keep their files, and what they say about themselves.

`trilogue.embedded` draws the whole layout.
"""

import json
import os
import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from trilogue.embedded.locks import is_held
from trilogue.errors import Conflict

LAYOUT = 1
"""Goes up when a guardian of one version and a user of another could misunderstand each other."""

ALREADY_GUARDED = 3
"""A guardian's exit code when another one guards the same place."""

_LOG_LIMIT = 1_000_000
_EXCEPTION = re.compile(r"[\w.]*(Error|Exception): ")
_TAIL_LINES = 3
_TAIL_CHARACTERS = 600


class Kind(StrEnum):
    """The servers that there are; the value names folders and log files."""

    VALKEY = "valkey"
    PREFECT = "prefect"


@dataclass(frozen=True, kw_only=True)
class State:
    """A server that answers. It is written after the first answer and removed before the end.

    Attributes:
        address: `unix:///…/valkey.sock` or `http://127.0.0.1:PORT`.
    """

    address: str
    guardian_pid: int
    server_pid: int
    layout: int = LAYOUT


@dataclass(frozen=True, kw_only=True)
class Place:
    """The files of one kind of server below one home."""

    home: Path
    kind: Kind

    @property
    def folder(self) -> Path:
        return self.home / "run" / self.kind

    @property
    def users_lock(self) -> Path:
        return self.folder / "users.lock"

    @property
    def start_lock(self) -> Path:
        return self.folder / "start.lock"

    @property
    def guardian_lock(self) -> Path:
        return self.folder / "guardian.lock"

    @property
    def server_lock(self) -> Path:
        return self.folder / "server.lock"

    @property
    def port(self) -> Path:
        """The port that a server with one last had, or is to try first."""
        return self.folder / "port"

    @property
    def log(self) -> Path:
        return self.home / "logs" / f"{self.kind}.log"

    @property
    def _state(self) -> Path:
        return self.folder / "state.json"

    def create(self) -> None:
        """Make the folders, readable by their owner only. Raises `OSError`."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.folder.parent, self.folder, self.log.parent):  # `parents` would take no mode
            folder.mkdir(mode=0o700, exist_ok=True)

    def state(self) -> State | None:
        """What the living guardian wrote, or `None` where no server answers.

        Raises:
            Conflict: the guardian belongs to another version of Trilogue.
        """
        try:
            text = self._state.read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not is_held(self.guardian_lock):
            return None
        values = json.loads(text)
        if values["layout"] != LAYOUT:
            raise Conflict(
                f"another version of Trilogue is running its {self.kind} server under {str(self.home)!r}; "
                "wait until its commands have ended, or set another TRILOGUE_HOME",
                code="embedded_version",
            )
        return State(**values)

    def write_state(self, state: State) -> None:
        """Replace the state in one step, so that nobody reads half of it."""
        fresh = self._state.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(state)))
        fresh.replace(self._state)

    def remove_state(self) -> None:
        """Say that no server answers here."""
        self._state.unlink(missing_ok=True)

    def open_log(self) -> int:
        """A descriptor that appends to the log, after setting a long log aside."""
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.old"))
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def log_size(self) -> int:
        """How long the log is: what `log_tail` takes to show only what came later."""
        return self.log.stat().st_size if self.log.exists() else 0

    def log_tail(self, since: int) -> str:
        """What the log says after byte `since`, as one line: the last exceptions if there are any, else its end."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(since)
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        raised = [line for line in lines if _EXCEPTION.match(line)]
        return " | ".join((raised or lines)[-_TAIL_LINES:])[-_TAIL_CHARACTERS:]
