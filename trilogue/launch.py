"""Starting and taking up pipelines through Prefect, in this process.

Prefect reads its settings when it is imported, which takes seconds, as do the parts of a
pipeline: so both are imported here, late, beside the start of the embedded servers, and
nowhere on the way to `--help`.
"""

import asyncio
import os
import re
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from trilogue import embedded
from trilogue.errors import TrilogueError, Unavailable
from trilogue.settings import Settings, load_settings
from trilogue.spec import PipelineSpec, RoundSpec

if TYPE_CHECKING:
    from trilogue.services import Services

_QUIET = {
    # What the flow run logs belongs into the Prefect UI, not between the lines of our own display.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "trilogue,tasks",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}
_CLOUD_API = re.compile(r"api[.\w]*\.prefect\.[^.]+$")
_HEAVY = ("flows.pipeline", "flows.continuation", "trilogue.services")


def prefect_configured() -> bool:
    """Whether the user named a Prefect server, in the environment or in the active Prefect profile."""
    return _prefect_setting("PREFECT_API_URL") is not None


def prefect_ui_url() -> str | None:
    """Where people reach Prefect's UI, without a slash at its end; None where there is none, or nobody can tell.

    It is what `PREFECT_UI_URL` says, else what Prefect itself makes of its API's address, else the embedded server
    of our home, while it runs. No credential of an address is part of it.
    """
    if (named := _prefect_setting("PREFECT_UI_URL")) is not None:
        return _for_people(named)
    if (api := _prefect_setting("PREFECT_API_URL")) is not None:
        return _for_people(api, of_api=True)
    try:
        servers = embedded.running(load_settings().home)
    except TrilogueError:
        return None
    return servers.prefect_ui_url if servers else None


def flow_run_url(flow_run_id: str) -> str | None:
    """The page of a flow run in Prefect's UI; None where there is no UI."""
    ui = prefect_ui_url()
    return ui and f"{ui}/runs/flow-run/{quote(flow_run_id, safe='')}"


def _prefect_setting(name: str) -> str | None:
    """A setting of Prefect's, from the environment or the active profile, without importing Prefect."""
    if value := os.environ.get(name):
        return value
    folder = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    try:
        profiles = tomllib.loads((folder / "profiles.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return None
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active")
    value = profiles.get("profiles", {}).get(active, {}).get(name)
    return str(value) if value else None


def _for_people(address: str, *, of_api: bool = False) -> str | None:
    """The address of a UI, itself or by that of its API, fit for a link; None for what is no http(s) address."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    place, path = parts.netloc.rpartition("@")[2], parts.path.rstrip("/")
    if parts.scheme not in {"http", "https"} or not place:
        return None
    if of_api:
        if _CLOUD_API.match(place):
            place = place.replace("api", "app", 1)
        path = path.removesuffix("/api").replace("/api/", "/")
        path = path.replace("/accounts/", "/account/").replace("/workspaces/", "/workspace/")
    return f"{parts.scheme}://{place}{path}"


def prefect_environment(settings: Settings, api_url: str | None) -> dict[str, str]:
    """What a program needs in its environment to use the embedded Prefect server, or with `None` the configured one."""
    own = {"PREFECT_HOME": str(settings.home / "prefect"), "PREFECT_API_URL": api_url} if api_url else {}
    return _QUIET | own


@contextmanager
def prefect_server(settings: Settings, progress: Callable[[str], None]) -> Iterator[str | None]:
    """A Prefect server to run flows against: the configured one, else the embedded one, shared and started if need be.

    Enter it before an event loop runs. Until it is left, the environment names the server.
    Gives the address of the embedded server's UI, or `None` for a configured server.
    """
    if prefect_configured():
        with _environment(_QUIET):
            progress("loading Prefect")
            _load()
            yield None
        return
    with suppress(OSError):  # refused below, in one clear line
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (settings.home / "prefect").mkdir(mode=0o700, exist_ok=True)
    own = {"PREFECT_HOME": str(settings.home / "prefect")}
    with _environment(_QUIET | own), ThreadPoolExecutor(1) as aside:
        loading = aside.submit(_load if (settings.home / "prefect").is_dir() else lambda: None)
        with embedded.serving(settings.home, progress=progress, redis=settings.redis_url is None) as servers:
            assert servers.prefect_api_url is not None
            progress("loading Prefect")
            loading.result()
            with _environment({"PREFECT_API_URL": servers.prefect_api_url}):
                from prefect.context import refresh_global_settings_context  # noqa: PLC0415

                # Prefect read its settings before the server's address was known.
                refresh_global_settings_context()
                yield servers.prefect_ui_url


def _load() -> None:
    for name in _HEAVY:
        import_module(name)


@contextmanager
def _environment(names: dict[str, str]) -> Iterator[None]:
    """Set what is not set already, and take it back on leaving."""
    added = {name: value for name, value in names.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


async def effective(settings: Settings) -> Settings:
    """The settings with the Prefect blocks over them, where a Prefect server is configured."""
    if not prefect_configured():
        return settings
    with _environment(_QUIET):  # which Prefect reads when it is imported, as it is here by commands that look first
        from blocks.loading import configured  # noqa: PLC0415

    return await configured(settings)


def terminated(error: BaseException) -> bool:
    """Whether `error` is what Prefect makes of a SIGTERM while a flow runs, whatever handler stood before."""
    from prefect.exceptions import TerminationSignal  # noqa: PLC0415  (imports Prefect)

    return isinstance(error, TerminationSignal)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator["Services"]:
    """Services for flows that run in this process, shared by all of them."""
    from tasks.process import serving as process_serving  # noqa: PLC0415  (imports Prefect)

    async with process_serving(await effective(settings)) as process:
        yield process.services


async def send_ticket() -> None:
    """Tell one warm worker that a pipeline is waiting. Never raises; a lost one costs a second (`tasks.tickets`)."""
    from tasks.tickets import send_ticket as send  # noqa: PLC0415  (imports Prefect)

    await send()


async def work(settings: Settings, *, concurrency: int, grace: float, ready: Callable[[], None] = lambda: None) -> None:
    """Be a warm worker until SIGTERM or SIGINT, which is to be the main thread's to hear (`tasks.worker`).

    Args:
        concurrency: how many pipelines at once.
        grace: seconds for what runs when the worker is told to end; then others take it up.
        ready: called, in another thread, once it takes what waits.

    Raises:
        Invalid, Unavailable, RevisionMismatch, Denied, NotFound: what is configured cannot be used.
    """
    from flows.pipeline import pipeline  # noqa: PLC0415  (imports Prefect)
    from tasks.worker import work as work_  # noqa: PLC0415

    await work_(await effective(settings), pipeline, concurrency=concurrency, grace=grace, ready=ready)


async def serve_deployments(ready: Callable[[], None]) -> None:
    """Deploy what `prefect.yaml` names and run its flow runs, until cancelled (`tasks.deployments`)."""
    from tasks.deployments import serve  # noqa: PLC0415  (imports Prefect)

    await serve(ready)


async def reach_prefect() -> None:
    """Raise `Unavailable` unless the Prefect server answers."""
    if not prefect_configured():
        raise Unavailable("no Prefect server is configured; set PREFECT_API_URL", code="prefect_unavailable")
    from prefect.client.orchestration import get_client  # noqa: PLC0415  (imports Prefect)

    async with get_client() as client:
        if fault := await client.api_healthcheck():
            raise Unavailable(
                f"Prefect does not answer: {type(fault).__name__}; is PREFECT_API_URL right?",
                code="prefect_unavailable",
            )


async def carry(pipeline_id: str, spec: PipelineSpec) -> None:
    """Run the flow `pipeline` for a recorded pipeline; its end is on the ledger.

    Raises:
        Conflict: somebody else works on it, or it has ended.
        CancelledError: interrupted; the lease was given back.
    """
    from flows.pipeline import pipeline  # noqa: PLC0415  (imports Prefect)

    await _ended(pipeline(objective=spec.objective, project=spec.project, pipeline_id=pipeline_id, return_state=True))


async def carry_on(pipeline_id: str, asked: RoundSpec) -> None:
    """Run the flow `continuation`; raises as `carry`, and what `Services.begin_round` raises."""
    from flows.continuation import continue_pipeline  # noqa: PLC0415  (imports Prefect)

    await _ended(continue_pipeline(pipeline_id=pipeline_id, **asked.model_dump(), return_state=True))


async def _ended(run: Awaitable[Any]) -> None:
    """Wait for a flow run. Its own `Failed` states say what the ledger says; anything else is raised."""
    state = await run
    if state.is_failed() and state.name == "Failed":
        await state.aresult()
    if state.is_crashed():
        # Only now: an error that ended a task group can leave its task marked as being cancelled.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        await state.aresult()
