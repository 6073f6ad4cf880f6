"""The application: routes, errors and guard, put together over the services of this process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from starlette.routing import Match

from trilogue import __version__, launch
from trilogue.api import acting, answers, docs, errors, health, reading, streams
from trilogue.api.context import Tickets
from trilogue.api.guard import Guard
from trilogue.errors import TrilogueError
from trilogue.services import Services, open_services
from trilogue.settings import Settings

_PRUNE_EVERY = 3600.0
_ROUTERS = (health.routes, acting.spawning, acting.routes, reading.routes, streams.router)
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
_ABOUT = """Governed multi-agent pipelines: spawn one, follow it, read what was agreed and why.

Where `TRILOGUE_API_KEY` is set, every request but `/healthz` needs it: `Authorization: Bearer …`, `X-API-Key: …`, or
for a browser's WebSocket the subprotocols `trilogue` and `bearer.<key>`. Lists are `{"items": […], "next": …}`; errors
are `{"error": code, "detail": text, "request_id": id}`, with the id of `X-Request-ID`. What models wrote is untrusted
text wherever it appears.
"""


def create_app(
    settings: Settings,
    *,
    may_rehearse: bool,
    on_queued: Callable[[], Awaitable[None]],
    reach_prefect: Callable[[], Awaitable[None]] = launch.reach_prefect,
) -> FastAPI:
    """The application; its lifespan opens the services, which are `app.state.services`.

    Args:
        may_rehearse: where nothing names a model, new pipelines are rehearsed; else they are refused.
        on_queued: told that a pipeline waits for a worker.
        reach_prefect: raises `Unavailable` unless the Prefect server answers.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(await launch.effective(settings)) as services:
            app.state.services = services
            app.state.tickets = Tickets(on_queued)
            pruning = asyncio.create_task(_prune(services))
            try:
                yield
            finally:
                pruning.cancel()
                await asyncio.gather(pruning, return_exceptions=True)
                await app.state.tickets.close()

    app = FastAPI(
        title="Trilogue",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.may_rehearse = may_rehearse
    app.state.reach_prefect = reach_prefect
    app.state.closing = asyncio.Event()
    errors.install(app)
    for router in _ROUTERS:
        app.include_router(router)
    docs.install(app)
    app.add_api_route("/api", _nothing_there, methods=_METHODS, include_in_schema=False)
    app.add_api_route("/api/{rest:path}", _nothing_there, methods=_METHODS, include_in_schema=False)
    answers.described(app)
    app.add_middleware(
        Guard,
        key=settings.api_key,
        hosts=settings.allowed_hosts.split(","),
        origins=settings.allowed_origins.split(","),
    )
    return app


async def _nothing_there(request: Request) -> None:
    """Unknown paths and wrong methods below `/api` end here, whatever is mounted behind."""
    known = [route for router in _ROUTERS for route in router.routes]
    here = [route for route in known if route.matches(request.scope)[0] is Match.PARTIAL]
    allowed = sorted({method for route in here for method in getattr(route, "methods", None) or ()})
    if allowed:
        raise HTTPException(405, headers={"Allow": ", ".join(allowed)})
    raise HTTPException(404)


async def _prune(services: Services) -> None:
    while True:
        with contextlib.suppress(TrilogueError):  # out of reach; next time
            await services.ledger.prune_requests()
        await asyncio.sleep(_PRUNE_EVERY)
