"""The programs that stay: `api`, `worker`, and the one that runs deployments under `up`."""

import asyncio
import logging
import signal
import socket
from collections.abc import Coroutine

from trilogue import launch
from trilogue.settings import load_settings
from trilogue.supervision.announcing import announce, announce_ready

_HEARD = ("trilogue.", "tasks.", "prefect.flow_runs")
REHEARSING = "Rehearsal: no language model is used; set OPENROUTER_API_KEY or LOCAL_MODEL_URL to use one."


def api(host: str, port: int, *, descriptor: int | None, may_rehearse: bool) -> None:
    """Serve HTTP until SIGINT or SIGTERM.

    Args:
        descriptor: a socket that listens already; then host and port only say where.
        may_rehearse: where nothing names a model, pipelines are rehearsed, which is announced.
    """
    from trilogue.api.app import create_app  # noqa: PLC0415
    from trilogue.api.serving import serve  # noqa: PLC0415
    from trilogue.dashboard import install  # noqa: PLC0415

    settings = load_settings()
    _log()

    async def serving() -> None:
        if may_rehearse and not (await launch.effective(settings)).names_a_model:
            announce(REHEARSING)
        app = create_app(settings, may_rehearse=may_rehearse, on_queued=launch.send_ticket)
        await serve(install(app), host=host, port=port, listening=_listening(descriptor))

    asyncio.run(serving())


def worker(concurrency: int | None, grace: float | None) -> None:
    """Carry pipelines until SIGINT or SIGTERM, and what then runs for `grace` seconds more."""
    settings = load_settings()
    _log()
    asyncio.run(
        launch.work(
            settings,
            concurrency=settings.concurrency if concurrency is None else concurrency,
            grace=settings.grace if grace is None else grace,
            ready=announce_ready,
        )
    )


def deployments() -> None:
    """Deploy what `prefect.yaml` names, and run its flow runs, until SIGINT or SIGTERM."""
    _log()
    asyncio.run(_until_asked(launch.serve_deployments(announce_ready)))


async def _until_asked(work: Coroutine[object, object, None]) -> None:
    task = asyncio.ensure_future(work)
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, task.cancel)
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


def _listening(descriptor: int | None) -> socket.socket | None:
    return None if descriptor is None else socket.socket(fileno=descriptor)


def _log() -> None:
    """To stderr: what our own parts and the flow runs log, and warnings of all others."""
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.startswith(_HEARD))
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", handlers=[handler])
    for name in ("trilogue", "tasks"):
        logging.getLogger(name).setLevel(logging.INFO)
