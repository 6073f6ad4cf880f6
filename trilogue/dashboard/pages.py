"""The routes of a pipeline's page: now, or as it stood; and what every page comes with."""

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from trilogue import clock
from trilogue.api.requests import known
from trilogue.dashboard.drawing import draw, log_row
from trilogue.dashboard.parts.moments import told
from trilogue.dashboard.past import Past
from trilogue.dashboard.rendering import render
from trilogue.dashboard.scene import Scene
from trilogue.dashboard.stage import ROWS_AT_ONCE
from trilogue.entry import Entry
from trilogue.errors import NotFound, TrilogueError

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
After = Annotated[int, Query(ge=0, le=2**31 - 1)]
_LONGEST_SEQ = 10
"""Digits that are read of a `seq` in a page's address, which anybody may have written."""


def page(request: Request, template: str, context: dict[str, Any], status: int = 200) -> HTMLResponse:
    """A whole page."""
    theme = request.cookies.get("theme", "")
    shared = {"theme": theme if theme in {"light", "dark"} else "", "path": request.url.path}
    return HTMLResponse(render(template, shared | context), status, HEADERS)


@routes.get("/pipelines/{pipeline_id}")
async def pipeline(pipeline_id: str, request: Request) -> Response:
    """A pipeline as it stands, or as it stood after the entry `at`; an `at` that makes no sense is the present."""
    given = request.query_params.get("at", "")[:_LONGEST_SEQ]
    at = int(given) or None if given.isascii() and given.isdecimal() else None
    try:
        scene = await _past(request).scene(known(pipeline_id), at)
    except NotFound as error:
        return page(request, "nothing.html", {"message": error.message}, 404)
    except TrilogueError as error:
        return page(request, "nothing.html", {"message": error.message}, 503)
    seq = scene.story.board.seq
    after = max(0, seq - ROWS_AT_ONCE)
    context = {
        "scene": scene,
        "parts": draw(scene),
        "rows": _rows(scene, after),
        "rows_after": after,
        "head": scene.row.head_seq,
        "seq": seq,
        "told": _told(scene),
    }
    return page(request, "pipeline.html", context)


@routes.get("/pipelines/{pipeline_id}/moment")
async def moment(pipeline_id: str, request: Request, at: Seq = None, after: After = 0) -> Response:
    """The parts of the page as they stood after the entry `at`, in the shape in which the socket tells them.

    `after` is the last row of the log that the page has. With what happened at the entry, and the next moment:
    what was committed at once belongs to one.
    """
    scene = await _past(request).scene(known(pipeline_id), at)
    seq = scene.story.board.seq
    first = max(after if after <= seq else 0, seq - ROWS_AT_ONCE)
    upcoming = _last_at_once(scene.whole[seq:])
    document = {
        "type": "parts",
        "seq": seq,
        "parts": draw(scene),
        "rows": _rows(scene, first),
        "rows_after": first,
        "at": clock.iso(scene.now),
        "head": scene.row.head_seq,
        "replay": scene.replay,
        "told": _told(scene),
        "next": upcoming and {"seq": upcoming.seq, "wait": (upcoming.at - scene.story.board.at) // 1_000},
    }
    return JSONResponse(document, headers=HEADERS)


def _last_at_once(entries: Iterable[Entry]) -> Entry | None:
    """The last of those that were committed together with the first."""
    last: Entry | None = None
    for entry in entries:
        if last and entry.at > last.at:
            break
        last = entry
    return last


def _past(request: Request) -> Past:
    past: Past = request.app.state.house.past
    return past


def _told(scene: Scene) -> str:
    story = scene.story
    last = story.entries[-1]
    return told(last, story.board.role_of(last.actor) if last.actor in story.board.agents else None)


def _rows(scene: Scene, after: int) -> list[str]:
    return [log_row(scene.story.board, entry) for entry in scene.story.entries[after:]]
