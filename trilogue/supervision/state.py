"""Whether `trilogue up` runs under a home, and where: `HOME/run/up.json`.

It is believed only while `HOME/run/up.lock` is held: a killed `up` leaves the file behind and drops the lock.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from trilogue.embedded.locks import Lock, is_held
from trilogue.errors import Conflict, Invalid

_PATIENCE = 1.0
"""Seconds; whoever looks whether the lock is held shares it for a moment."""


@dataclass(frozen=True, kw_only=True)
class Up:
    """An `up` whose parts are all ready.

    Attributes:
        pid: of `up` itself.
        api_url: `http://127.0.0.1:PORT`, without a path.
        dashboard_url: where people reach the pages; empty where an older `up` does not say.
        prefect_url: Prefect's UI, or its API where that is all that is known.
        started_at: ISO 8601.
    """

    pid: int
    api_url: str
    dashboard_url: str = ""
    prefect_url: str
    started_at: str


class Taken:
    """A home's lock, held; others learn of a ready `up` once it was shown."""

    def __init__(self, home: Path) -> None:
        self._file = _file(home)

    def show(self, up: Up) -> None:
        """Tell other commands where everything is, in one step."""
        fresh = self._file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(up), file)
        fresh.replace(self._file)

    def hide(self) -> None:
        """Say that nothing is up, or that something stale was."""
        self._file.unlink(missing_ok=True)


def present(home: Path) -> Up | None:
    """The `up` that runs under `home`, or `None` where none does or it is not ready yet. Creates nothing."""
    try:
        text = _file(home).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not is_held(_lock(home)):
        return None
    return Up(**json.loads(text))


@contextmanager
def taking(home: Path) -> Iterator[Taken]:
    """Be the one `up` of `home`.

    Raises:
        Conflict: another one runs.
        Invalid: `home` cannot be written.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "run").mkdir(mode=0o700, exist_ok=True)
        lock = Lock(_lock(home))
    except OSError as error:
        raise Invalid(
            f"TRILOGUE_HOME {str(home)!r} cannot be used: {error.strerror or error}; "
            "set it to a folder that can be written",
            code="bad_home",
        ) from error
    try:
        if not _taken(lock):
            raise Conflict(_already(home), code="already_up")
        taken = Taken(home)
        taken.hide()
        try:
            yield taken
        finally:
            taken.hide()
    finally:
        lock.close()


def _taken(lock: Lock) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while not lock.try_exclusive():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _already(home: Path) -> str:
    other = present(home)
    where = f"at {other.api_url} (process {other.pid})" if other else "and is about to be ready, or to end"
    return f"`trilogue up` already runs under {str(home)!r} {where}; use it, or set another TRILOGUE_HOME"


def _file(home: Path) -> Path:
    return home / "run" / "up.json"


def _lock(home: Path) -> Path:
    return home / "run" / "up.lock"
