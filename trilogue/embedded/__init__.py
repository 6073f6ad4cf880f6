"""A Valkey and a Prefect server under the user's home, so that a one-shot needs nothing configured.

Both are shared between all terminals of one home. Each has a guardian, a process apart,
which starts it, starts it again when it dies, and ends it when its last user is gone:

    HOME/
      run/valkey/  run/prefect/
        users.lock      shared by every user for as long as it lives; a killed one drops it too
        start.lock      held by the one user that is starting the server
        guardian.lock   held by the living guardian
        server.lock     held by the living server, with its pid inside
        state.json      address and pids, there only while the server answers
        port            (Prefect) the port it last had, so that links into its UI stay good
      logs/valkey.log  logs/prefect.log
      prefect/          PREFECT_HOME: its database, its copy of the UI
    RUNTIME/trilogue-UID-HASH/valkey.sock    RUNTIME: $XDG_RUNTIME_DIR, else /tmp

A lock is believed, a file never: what a crash leaves behind is replaced by the next start.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from trilogue.embedded.joining import Joining
from trilogue.embedded.place import Kind, Place, State
from trilogue.errors import Invalid

LINGER = 4.0
"""Seconds that a server outlives its last user: long enough for the next command of a script."""

_DEADLINE = 120.0
_STEP = 0.02
_PROGRESS_EVERY = 1.0


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Where the embedded servers are; `None` for one that was not asked for, or is not running.

    Attributes:
        redis_url: `unix:///…/valkey.sock`.
        prefect_api_url: what `PREFECT_API_URL` is to be.
        prefect_ui_url: for people.
    """

    redis_url: str | None
    prefect_api_url: str | None
    prefect_ui_url: str | None


@contextmanager
def serving(
    home: Path,
    *,
    progress: Callable[[str], None] = lambda _: None,
    redis: bool = True,
    prefect: bool = True,
    linger: float = LINGER,
) -> Iterator[Servers]:
    """Use the embedded servers of `home`, which are started unless they run.

    It blocks for up to two minutes, so call it before an event loop runs, or in a thread.
    Leaving, interrupted or killed, the caller touches nothing that others use.

    Args:
        progress: told about once a second what is being waited for, as a phrase.
        linger: seconds that servers started here outlive their last user.

    Raises:
        Invalid: `home` cannot be written.
        Unavailable: a server does not start.
        Conflict: the servers running under `home` belong to another version of Trilogue.
    """
    home = home.expanduser().absolute()
    wanted = [kind for kind, asked in ((Kind.VALKEY, redis), (Kind.PREFECT, prefect)) if asked]
    with ExitStack() as leaving:
        with _refusing(home):
            joinings = {kind: _joined(leaving, Place(home=home, kind=kind), linger) for kind in wanted}
            states = _await_all(joinings, progress)
        yield _servers(states)


def remember_prefect_port(home: Path, port: int, *, only_first: bool) -> None:
    """Let the Prefect server of `home` try this port first when it next starts.

    Args:
        only_first: leave a port that it has had before as it is.

    Raises:
        Invalid: `home` cannot be written.
    """
    place = Place(home=home.expanduser().absolute(), kind=Kind.PREFECT)
    with _refusing(place.home):
        place.create()
        if not (only_first and place.port.exists()):
            place.port.write_text(str(port))


def running(home: Path) -> Servers | None:
    """The servers of `home` that run now, or `None`. Starts nothing, creates nothing, and is no user of them."""
    home = home.expanduser().absolute()
    with _refusing(home):
        found = {kind: state for kind in Kind if (state := Place(home=home, kind=kind).state()) is not None}
    return _servers(found) if found else None


@contextmanager
def _refusing(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Invalid(
            f"TRILOGUE_HOME {str(home)!r} cannot be used: {error.strerror or error}; "
            "set it to a folder that can be written",
            code="bad_home",
        ) from error


def _joined(leaving: ExitStack, place: Place, linger: float) -> Joining:
    place.create()
    joining = Joining(place, linger)
    leaving.callback(joining.close)
    return joining


def _await_all(joinings: Mapping[Kind, Joining], progress: Callable[[str], None]) -> dict[Kind, State]:
    began = told = time.monotonic()
    states: dict[Kind, State] = {}
    while True:
        for kind in joinings.keys() - states.keys():
            if (state := joinings[kind].step()) is not None:
                states[kind] = state
        pending = [joinings[kind] for kind in joinings if kind not in states]
        if not pending:
            return states
        now = time.monotonic()
        if now - began > _DEADLINE:
            raise pending[0].failure(f"did not start within {_DEADLINE:.0f} s")
        if now - told >= _PROGRESS_EVERY:
            told = now
            progress(f"{', '.join(joining.doing for joining in pending)} ({now - began:.0f} s)")
        time.sleep(_STEP)


def _servers(states: Mapping[Kind, State]) -> Servers:
    valkey, prefect = states.get(Kind.VALKEY), states.get(Kind.PREFECT)
    return Servers(
        redis_url=valkey.address if valkey else None,
        prefect_api_url=f"{prefect.address}/api" if prefect else None,
        prefect_ui_url=prefect.address if prefect else None,
    )
