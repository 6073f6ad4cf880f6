"""The embedded Prefect server: API and UI on a loopback port, SQLite under the home.

Prefect itself runs in a child process only (`prefect_app`). The guardian opens the
listening socket and hands it over, so no other program can take the port between two
lives of the server, and clients that come meanwhile wait instead of failing.
"""

import socket
import sys
from pathlib import Path

from trilogue.embedded.place import Place
from trilogue.embedded.server import Launch, ask
from trilogue.errors import Unavailable

_HOST = "127.0.0.1"
_PORTS = range(4210, 4300)
"""Where a home looks for its first port: beside Prefect's usual 4200, below what kernels give to clients."""


class PrefectServer:
    """`Server` for Prefect."""

    def __init__(self, place: Place) -> None:
        self._folder = place.home / "prefect"
        self._remembered_port = place.port
        self._socket: socket.socket | None = None

    @property
    def _database(self) -> Path:
        return self._folder / "prefect.db"

    @property
    def _served_once(self) -> Path:
        return self._folder / "served"

    @property
    def _port(self) -> int:
        assert self._socket is not None
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def address(self) -> str:
        return f"http://{_HOST}:{self._port}"

    def prepare(self) -> Launch:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if self._socket is None:
            self._socket = _listen([*self._last_port(), *_PORTS, 0])
            self._remembered_port.write_text(str(self._port))
        return Launch(
            argv=[sys.executable, "-P", "-m", "trilogue.embedded.prefect_app", str(self._socket.fileno())],
            # Prefect reads `.env`, `prefect.toml` and `pyproject.toml` where it runs: never in the user's folder.
            folder=self._folder,
            environment=self._environment(),
            descriptors=[self._socket.fileno()],
        )

    def answers(self) -> bool:
        question = b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        return ask(socket.AF_INET, (_HOST, self._port), question).startswith(b"HTTP/1.1 200 ")

    def reachable(self) -> bool:
        return True

    def served(self) -> None:
        self._served_once.touch()

    def mend(self) -> bool:
        # Not every migration of Prefect is one transaction: a kill during the first of all
        # boots can leave tables that no later boot can migrate. No run was ever recorded in them.
        if self._served_once.exists() or not self._database.exists():
            return False
        for suffix in ("", "-wal", "-shm"):
            self._database.with_name(self._database.name + suffix).unlink(missing_ok=True)
        return True

    def tidy(self) -> None:
        """All that it leaves is for the next start."""

    def _last_port(self) -> list[int]:
        # The same port again, so that a link into the UI stays good.
        try:
            return [int(self._remembered_port.read_text())]
        except (FileNotFoundError, ValueError):
            return []

    def _environment(self) -> dict[str, str]:
        return {
            "PREFECT_HOME": str(self._folder),
            # Relative to where it runs: a home may hold characters that mean something in a URL.
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{self._database.name}",
            "PREFECT_SERVER_API_HOST": _HOST,
            "PREFECT_SERVER_API_PORT": str(self._port),
            # Pages of other origins in the user's browser have no business here.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"{self.address},http://localhost:{self._port}",
            # By default Prefect copies its UI into its own package, which may be read-only.
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(self._folder / "ui"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "PREFECT__SERVER_FINAL": "1",  # as Prefect sets it for its own background server
        }


def _listen(ports: list[int]) -> socket.socket:
    for port in ports:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((_HOST, port))
            listening.listen(512)
        except OSError:
            listening.close()
        else:
            return listening
    raise Unavailable(f"no port of {_HOST} can be listened on for the Prefect server")
