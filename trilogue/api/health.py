"""Whether the server lives, and whether everything that it needs can be reached."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from trilogue import __version__
from trilogue.api.answers import ALWAYS
from trilogue.api.context import Use
from trilogue.api.errors import Problem, problem
from trilogue.errors import TrilogueError, Unavailable

routes = APIRouter(tags=["health"], responses=ALWAYS)

_PATIENCE = 5.0
"""Seconds that one answer may take, before its giver counts as out of reach."""

Check = Callable[[], Awaitable[Any]]


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"
    version: str


class Ready(BaseModel):
    """Everything that is needed answers."""

    status: Literal["ready"] = "ready"
    checks: Annotated[dict[str, str], Field(examples=[{"ledger": "ok", "redis": "ok", "prefect": "ok"}])]


class NotReady(Problem):
    """Something that is needed does not answer; `checks` says what, and why."""

    checks: dict[str, str]


@routes.get("/healthz")
async def healthz() -> Alive:
    """Whether the process lives. Asks nothing else, and needs no key."""
    return Alive(version=__version__)


@routes.get(
    "/readyz",
    response_model=Ready,
    responses={503: {"model": NotReady, "description": "Something that is needed is out of reach."}},
)
async def readyz(request: Request, services: Use) -> Ready | JSONResponse:
    """Whether ledger, Redis and Prefect can be reached."""
    asked: dict[str, Check] = {
        "ledger": lambda: services.ledger.heads({("", "")}),
        "redis": services.live.ping,
        "prefect": request.app.state.reach_prefect,
    }
    found = await asyncio.gather(*(_checked(check) for check in asked.values()))
    checks = dict(zip(asked, found, strict=True))
    away = [f"{name}: {said}" for name, said in checks.items() if said != "ok"]
    if not away:
        return Ready(checks=checks)
    return problem(request, 503, "not_ready", "; ".join(away), {"Retry-After": "2"}, checks=checks)


async def _checked(check: Check) -> str:
    try:
        async with asyncio.timeout(_PATIENCE):
            await check()
    except TimeoutError:
        return f"no answer within {_PATIENCE:g} s"
    except Unavailable as error:
        return error.message
    except TrilogueError as error:
        return f"cannot be used: {error.message}"
    return "ok"
