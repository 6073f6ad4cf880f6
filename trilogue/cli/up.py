"""`trilogue up`: the embedded servers, the API, a warm worker, and the deployments with theirs, on one machine."""

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from trilogue import clock, embedded, launch
from trilogue.cli.ending import INTERRUPTED
from trilogue.cli.lines import Lines
from trilogue.cli.viewing import View
from trilogue.errors import Conflict, TrilogueError
from trilogue.settings import Settings, load_settings
from trilogue.supervision import ABOUT, Program, Say, Up, supervise, taking
from trilogue.supervision.listening import answers, listening

_HOST = "127.0.0.1"
_PREFECT_PORT = 4200
"""Of the embedded Prefect server, unless the home has used another one or this one is taken."""

_LINGER = 0.5
"""Seconds that the embedded servers outlive us, so that they, too, are gone five seconds after a `kill -9`."""

_GRACE = 3.0
"""Seconds that the worker goes on with what it carries; the next `up` takes up what is left."""

_LOOK_EVERY = 2.0
"""Seconds between two looks whether the embedded servers are there."""

_API, _WORKER, _DEPLOYMENTS = "api", "worker", "deployments"


@dataclass(frozen=True, kw_only=True)
class _Prefect:
    """The Prefect server in use: its API and its UI, where they are known."""

    api_url: str | None
    ui_url: str | None


def up(*, port: int, prefect_port: int | None, quiet: bool, as_json: bool) -> int:
    """Start everything, keep it alive, and end it at Ctrl-C or SIGTERM. Returns the exit code.

    Raises:
        Conflict: an `up` runs under this home already, or a port is taken.
        GaveUp: a part does not stay alive.
    """
    settings = load_settings()
    with (
        taking(settings.home) as taken,
        listening(_HOST, port, option="--port") as ours,
        _prefect(settings, prefect_port, as_json=as_json) as prefect,
        Lines((_API, _WORKER, _DEPLOYMENTS), quiet=quiet, to_stderr=as_json) as lines,
    ):
        api_url = f"http://{_HOST}:{ours.getsockname()[1]}"
        state = Up(
            pid=os.getpid(),
            api_url=api_url,
            dashboard_url=settings.dashboard_url or api_url,
            prefect_url=prefect.ui_url or prefect.api_url or "",
            started_at=clock.iso(clock.now()),
        )

        def ready(notes: Sequence[str]) -> None:
            taken.show(state)
            lines.show(_panel(state, notes))
            if as_json:
                print(json.dumps(asdict(state)), flush=True)  # noqa: T201

        def ending() -> None:
            taken.hide()
            lines.say(ABOUT, "ending; once more ends at once")

        threading.Thread(target=_mend, args=(settings, prefect, lines.say), daemon=True).start()
        lines.say(ABOUT, f"starting {_API}, {_WORKER} and {_DEPLOYMENTS}")
        sign = asyncio.run(
            supervise(
                _programs(settings, ours),
                environment=_environment(settings, prefect, state.dashboard_url),
                say=lines.say,
                ready=ready,
                ending=ending,
            )
        )
    return INTERRUPTED if sign is signal.SIGINT else 0


@contextmanager
def _prefect(settings: Settings, port: int | None, *, as_json: bool) -> Iterator[_Prefect]:
    """The embedded servers, as far as nothing else is configured."""
    configured = launch.prefect_configured()
    if not configured:
        _choose_port(settings, port)
    with ExitStack() as leaving:
        with View(to_stderr=as_json) as view:
            if not (configured or (settings.home / "prefect" / "served").exists()):
                view.say("The first start makes Prefect's database, which takes up to a minute, once.")
            servers = leaving.enter_context(
                embedded.serving(
                    settings.home,
                    progress=view.progress,
                    redis=settings.redis_url is None,
                    prefect=not configured,
                    linger=_LINGER,
                )
            )
        url = servers.prefect_ui_url
        if url and port not in {None, urlsplit(url).port}:
            raise Conflict(
                f"the Prefect server of this home runs at {url}, not at port {port}; leave out --prefect-port, "
                "or end the commands that use it",
                code="port_taken",
            )
        yield _Prefect(api_url=servers.prefect_api_url, ui_url=url)


def _mend(settings: Settings, prefect: _Prefect, say: Say) -> None:
    """Start the embedded servers again when their guardian is gone, too; for as long as this process lives."""
    redis, served = settings.redis_url is None, prefect.ui_url is not None
    using = ExitStack()
    while redis or served:
        time.sleep(_LOOK_EVERY)
        found = embedded.running(settings.home)
        if found and (found.redis_url or not redis) and (found.prefect_api_url or not served):
            continue
        say(ABOUT, "an embedded server does not answer; starting it again")
        try:
            using.enter_context(embedded.serving(settings.home, redis=redis, prefect=served, linger=_LINGER))
        except TrilogueError as error:
            say(ABOUT, error.message)
        else:
            say(ABOUT, "the embedded servers answer again")


def _choose_port(settings: Settings, port: int | None) -> None:
    """Let the embedded Prefect server begin at the port that is asked for, else where people look for Prefect."""
    running = embedded.running(settings.home)
    if running is not None and running.prefect_api_url is not None:
        return
    if port is not None:
        with listening(_HOST, port, option="--prefect-port"):
            pass
    embedded.remember_prefect_port(settings.home, port or _PREFECT_PORT, only_first=port is None)


def _programs(settings: Settings, ours: socket.socket) -> list[Program]:
    port, descriptor = ours.getsockname()[1], ours.fileno()
    key = settings.api_key.get_secret_value() if settings.api_key else None
    command = (sys.executable, "-P", "-m", "trilogue")
    return [
        Program(
            name=_API,
            argv=(*command, "api", "--port", str(port), "--descriptor", str(descriptor), "--may-rehearse"),
            descriptors=[descriptor],
            ready=lambda: answers(_HOST, port, "/readyz", key),
        ),
        Program(name=_WORKER, argv=(*command, "worker", "--grace", str(min(settings.grace, _GRACE)))),
        Program(name=_DEPLOYMENTS, argv=(*command, "deployments")),
    ]


def _environment(settings: Settings, prefect: _Prefect, dashboard_url: str) -> dict[str, str]:
    """What all programs get: the user's environment, and where the embedded servers and the pages are.

    The embedded Valkey is not named: each joins it by itself, as one that needs no password from Vault.
    """
    return (
        {"PREFECT_WORKER_QUERY_SECONDS": "1"}
        | launch.prefect_environment(settings, prefect.api_url)
        | os.environ
        | {"TRILOGUE_HOME": str(settings.home), "TRILOGUE_DASHBOARD_URL": dashboard_url, "PYTHONUNBUFFERED": "1"}
    )


def _panel(state: Up, notes: Sequence[str]) -> Panel:
    table = Table.grid(padding=(0, 2, 0, 0))
    rows = {
        "dashboard": state.dashboard_url,
        "API": state.api_url,
        "its description": f"{state.api_url}/docs",
        "Prefect": state.prefect_url,
    }
    for what, where in rows.items():
        if where:
            table.add_row(Text(what, style="dim"), Text(where, style="bold"))
    for note in notes:
        table.add_row("", Text(note, style="yellow"))
    return Panel.fit(table, title="Trilogue is up", subtitle="Ctrl-C ends it", border_style="green")
