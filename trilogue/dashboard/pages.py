"""The routes of the pages: home, a pipeline now or as it stood, and the static files."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from trilogue import clock
from trilogue.api.context import Use
from trilogue.api.requests import known
from trilogue.dashboard.drawing import draw, log_row
from trilogue.dashboard.rendering import render
from trilogue.dashboard.scene import Scene
from trilogue.dashboard.stage import ROWS_AT_ONCE
from trilogue.dashboard.story import Story
from trilogue.errors import NotFound, TrilogueError
from trilogue.ledger.opening import TENANT
from trilogue.services import Services

routes = APIRouter(include_in_schema=False)

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Whatever a model wrote and however it got into a page: nothing of it runs, and nothing leaves."""

HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Seq = Annotated[int | None, Query(ge=1, le=2**31 - 1)]


def page(request: Request, template: str, context: dict[str, Any], status: int = 200) -> HTMLResponse:
    """A whole page."""
    theme = request.cookies.get("theme", "")
    shared = {"theme": theme if theme in {"light", "dark"} else "", "path": request.url.path}
    return HTMLResponse(render(template, shared | context), status, HEADERS)


@routes.get("/")
async def home(request: Request) -> Response:
    """What can be asked for, and what was."""
    return page(request, "home.html", {})


@routes.get("/pipelines/{pipeline_id}")
async def pipeline(pipeline_id: str, request: Request, services: Use, at: Seq = None) -> Response:
    """A pipeline as it stands, or as it stood after the entry `at`."""
    try:
        scene = await _scene(services, known(pipeline_id), at)
    except NotFound as error:
        return page(request, "nothing.html", {"message": error.message}, 404)
    except TrilogueError as error:
        return page(request, "nothing.html", {"message": error.message}, 503)
    entries = scene.story.entries
    context = {
        "scene": scene,
        "parts": draw(scene),
        "rows": _rows(scene.story),
        "rows_after": max(0, len(entries) - ROWS_AT_ONCE),
        "head": scene.row.head_seq,
        "seq": scene.story.board.seq,
    }
    return page(request, "pipeline.html", context)


@routes.get("/pipelines/{pipeline_id}/moment")
async def moment(pipeline_id: str, services: Use, at: Seq = None) -> Response:
    """The parts of the page as they stood after the entry `at`, in the shape in which the socket tells them."""
    scene = await _scene(services, known(pipeline_id), at)
    seq = scene.story.board.seq
    told = {
        "type": "parts",
        "seq": seq,
        "parts": draw(scene),
        "rows": _rows(scene.story),
        "rows_after": max(0, seq - ROWS_AT_ONCE),
        "at": clock.iso(scene.now),
        "head": scene.row.head_seq,
    }
    return JSONResponse(told, headers=HEADERS)


async def _scene(services: Services, pipeline_id: str, at: int | None) -> Scene:
    row = await services.ledger.get_pipeline(TENANT, pipeline_id)
    entries = await services.ledger.entries(TENANT, pipeline_id, limit=at)
    story = Story.told(entries)
    replay = at is not None and at < row.head_seq
    return Scene(story=story, row=row, now=story.board.at if replay else clock.now(), replay=replay)


def _rows(story: Story) -> list[str]:
    return [log_row(story.board, entry) for entry in story.entries[-ROWS_AT_ONCE:]]
