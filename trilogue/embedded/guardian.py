"""The process that keeps one embedded server for all terminals, and ends it after the last of them.

    python -m trilogue.embedded.guardian KIND HOME LINGER

Its first process ends as soon as it is known who guards: 0, a guardian now runs apart from
its starter; `ALREADY_GUARDED`, another one does. The guardian lives for as long as somebody
shares the users' lock. It ends by taking that lock for itself, so that nobody can begin to
use a server that is about to go.
"""

import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from enum import Enum, auto
from pathlib import Path

from trilogue.embedded.locks import Lock
from trilogue.embedded.place import ALREADY_GUARDED, Kind, Place, State
from trilogue.embedded.prefect_server import PrefectServer
from trilogue.embedded.server import Server, end_leftover, start, stop
from trilogue.embedded.valkey_server import ValkeyServer
from trilogue.errors import TrilogueError, Unavailable

_TICK = 0.5
_BOOT_TICK = 0.02
_BOOT_DEADLINE = 120.0
_LOCK_PATIENCE = 5.0
_RESTART_PAUSES = (0.2, 1.0, 2.0, 4.0)
_STEADY = 60.0
"""Seconds after which a server counts as sound again, and all restarts are available anew."""

_log = logging.getLogger("trilogue.embedded")


class _Ending(Enum):
    OVER = auto()  # no users any more, or SIGTERM
    UNBORN = auto()  # it never answered
    DIED = auto()  # it answered, and then no more


class _Guardian:
    def __init__(self, place: Place, server: Server, linger: float) -> None:
        self._place = place
        self._server = server
        self._linger = linger
        self._users = Lock(place.users_lock)
        self._life = Lock(place.server_lock)
        self._tick = min(_TICK, linger)
        self._unused_since: float | None = None
        self._signals = _receive_signals()

    def run(self) -> int:
        if not _within(_LOCK_PATIENCE, self._alone):
            raise Unavailable("a server whose guardian was killed does not end")
        pauses = list(_RESTART_PAUSES)
        served = mended = False
        while True:
            began = time.monotonic()
            ending = self._one_life()
            if ending is _Ending.OVER:
                return 0
            if ending is _Ending.UNBORN and not served:
                if mended or not self._server.mend():
                    _log.error("the server did not start; giving up")
                    return 1
                mended = True
                _log.warning("the server did not start; what its first start left was removed, trying again")
                continue
            served = True
            if time.monotonic() - began > _STEADY:
                pauses = list(_RESTART_PAUSES)
            if not pauses:
                _log.error("the server ended too often; giving up")
                return 1
            _log.warning("the server ended; starting it again")
            if self._over(pauses.pop(0)):
                return 0

    def _one_life(self) -> _Ending:
        process = start(self._server.prepare(), self._life)
        try:
            began = time.monotonic()
            while not self._server.answers():
                if self._over(_BOOT_TICK):
                    return _Ending.OVER
                if process.poll() is not None or time.monotonic() - began > _BOOT_DEADLINE:
                    return _Ending.UNBORN
            self._server.served()
            self._place.write_state(
                State(address=self._server.address, guardian_pid=os.getpid(), server_pid=process.pid)
            )
            while process.poll() is None and self._server.reachable():
                if self._over(self._tick):
                    return _Ending.OVER
            return _Ending.DIED
        finally:
            self._place.remove_state()
            stop(process)
            self._server.tidy()

    def _over(self, seconds: float) -> bool:
        """Wait, or until a signal comes; then whether to end."""
        if select.select([self._signals], [], [], seconds)[0]:
            received = os.read(self._signals, 64)
            if signal.SIGTERM in received:
                _log.warning("asked to end")
                return True
        return self._unused()

    def _unused(self) -> bool:
        """Whether nobody used the server for the whole linger; then the users' lock stays held."""
        if not self._users.try_exclusive():
            self._unused_since = None
            return False
        now = time.monotonic()
        self._unused_since = self._unused_since or now
        if now - self._unused_since < self._linger:
            self._users.release()
            return False
        return True

    def _alone(self) -> bool:
        if self._life.try_exclusive():
            return True
        end_leftover(self._life)
        return False


def _receive_signals() -> int:
    """A descriptor on which the numbers of arriving signals can be read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writing)
    return reading


def _within(seconds: float, attempt: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not attempt():
        if time.monotonic() > deadline:
            return False
        time.sleep(_BOOT_TICK)
    return True


_SERVERS: dict[Kind, Callable[[Place], Server]] = {Kind.VALKEY: ValkeyServer, Kind.PREFECT: PrefectServer}


def main(place: Place, linger: float) -> int:
    """Guard the server of `place` unless another guardian does; returns in a process apart."""
    os.umask(0o077)
    guarding = Lock(place.guardian_lock)
    # Whoever looks whether there is a guardian shares this lock for a moment.
    if not _within(1.0, guarding.try_exclusive):
        return ALREADY_GUARDED
    if os.fork():
        return 0
    logging.basicConfig(format="%(asctime)s guardian: %(message)s")
    try:
        return _Guardian(place, _SERVERS[place.kind](place), linger).run()
    except TrilogueError as error:
        _log.error(error.message)
        return 1


if __name__ == "__main__":
    sys.exit(main(Place(kind=Kind(sys.argv[1]), home=Path(sys.argv[2])), float(sys.argv[3])))
