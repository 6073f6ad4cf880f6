"""One terminal's use of one embedded server: counted from the first moment, started where nobody runs it.

Everything is taken without waiting, step by step, so that one loop can bring up several
servers at once and Ctrl-C strikes at any point. Whatever happens to this process, the
locks fall with it, and the guardian sees one user less.
"""

import os
import subprocess
import sys

from trilogue.embedded.locks import Lock, is_held
from trilogue.embedded.place import ALREADY_GUARDED, Kind, Place, State
from trilogue.embedded.server import plain_environment
from trilogue.errors import Unavailable

_TITLES = {Kind.VALKEY: "Valkey", Kind.PREFECT: "the Prefect server"}


class Joining:
    """A user's way to a server that answers. Call `step` until it returns the state."""

    def __init__(self, place: Place, linger: float) -> None:
        self.doing = ""
        self._place = place
        self._linger = linger
        self._title = _TITLES[place.kind]
        self._users = Lock(place.users_lock)
        self._start = Lock(place.start_lock)
        self._counted = False
        self._first = False
        self._launching: subprocess.Popen[bytes] | None = None
        self._launched = False
        self._log_since = place.log_size()

    def step(self) -> State | None:
        """Go as far as is possible now; the state once the server answers.

        Raises:
            Unavailable: the server was started and did not come up; the message says what its log says.
        """
        self._counted = self._counted or self._users.try_shared()
        if not self._counted:
            self.doing = f"waiting for {self._title} of an earlier command to end"
            return None
        self._first = self._first or self._start.try_exclusive()
        if not self._first:
            self.doing = f"another terminal is starting {self._title}"
            return None
        self.doing = f"starting {self._title}"
        state = self._place.state()
        if state is not None:
            self._start.release()
        elif not is_held(self._place.guardian_lock):
            self._launch()
        return state

    def failure(self, reason: str) -> Unavailable:
        """Why there is no server, with what its log says."""
        tail = self._place.log_tail(self._log_since)
        message = f"{self._title} {reason}; its log is {str(self._place.log)!r}" + (
            f" and says: {tail}" if tail else ""
        )
        return Unavailable(message, code=f"no_{self._place.kind}")

    def close(self) -> None:
        """No longer be a user."""
        self._users.close()
        self._start.close()
        if self._launching is not None:
            self._launching.wait()

    def _launch(self) -> None:
        """Start a guardian, or look what became of the one that was started."""
        if self._launching is not None:
            code = self._launching.poll()
            if code is None:
                return
            self._launching = None
            if code == ALREADY_GUARDED:
                return  # a starter was killed, but not its guardian, which only now came up
            self._launched = True
        elif not self._launched:
            self._place.remove_state()  # of a guardian that was killed
            self._launching = self._guardian()
        if self._launched:
            raise self.failure("did not start")

    def _guardian(self) -> subprocess.Popen[bytes]:
        log = self._place.open_log()
        self._log_since = os.fstat(log).st_size
        try:
            return subprocess.Popen(  # noqa: S603 - our own module
                [
                    *(sys.executable, "-P", "-m", "trilogue.embedded.guardian"),
                    *(self._place.kind, str(self._place.home), str(self._linger)),
                ],
                cwd=self._place.folder,
                env=plain_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)
