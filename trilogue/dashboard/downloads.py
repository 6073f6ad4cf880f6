"""The documents of a pipeline to keep: its report and its result as Markdown, its whole outcome as JSON.

They are what the ledger has, word for word: what models wrote in them is untrusted text, and never shown as a page.
"""

import re
from collections.abc import Callable
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from trilogue.api import documents
from trilogue.api.context import Use
from trilogue.api.requests import known
from trilogue.board import Board, fold
from trilogue.dashboard.pages import HEADERS, page
from trilogue.desk import local
from trilogue.errors import NotFound, TrilogueError
from trilogue.ledger.opening import TENANT
from trilogue.outcome import result_markdown
from trilogue.services import Services

routes = APIRouter(include_in_schema=False)

_MARKDOWN: Final = "text/markdown; charset=utf-8"
_JSON: Final = "application/json"
_NO_FILE_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@routes.get("/pipelines/{pipeline_id}/report.md")
async def report(pipeline_id: str, request: Request, services: Use) -> Response:
    """The report, from when there is one."""

    def text(board: Board) -> str:
        if not board.report:
            raise NotFound(f"{pipeline_id} has no report yet", code="no_report")
        return str(board.report["markdown"])

    return await _markdown(request, services, pipeline_id, "report", text)


@routes.get("/pipelines/{pipeline_id}/result.md")
async def result(pipeline_id: str, request: Request, services: Use) -> Response:
    """The agreed text with its votes, from when the pipeline has ended; without one, why there is none."""

    def text(board: Board) -> str:
        if not board.status.ended:
            raise NotFound(f"{pipeline_id} has no result yet: it is {board.status}", code="no_result")
        return result_markdown(pipeline_id, board)

    return await _markdown(request, services, pipeline_id, "result", text)


@routes.get("/pipelines/{pipeline_id}/result.json")
async def outcome(pipeline_id: str, request: Request, services: Use) -> Response:
    """The outcome as `GET /api/pipelines/{id}/result` tells it, at any time."""
    try:
        row = await services.ledger.get_pipeline(TENANT, known(pipeline_id))
        board = fold(await services.ledger.entries(TENANT, pipeline_id))
        document = documents.result_document(row, board, await services.ledger.usage(TENANT, pipeline_id))
    except TrilogueError as error:
        return _missing(request, error)
    return _to_keep(document.model_dump_json(indent=2) + "\n", f"{pipeline_id}-result.json", _JSON)


async def _markdown(
    request: Request, services: Services, pipeline_id: str, what: str, text: Callable[[Board], str]
) -> Response:
    try:
        content = text(await local(services).board(known(pipeline_id)))
    except TrilogueError as error:
        return _missing(request, error)
    return _to_keep(content, f"{pipeline_id}-{what}.md", _MARKDOWN)


def _to_keep(content: str, name: str, media_type: str) -> Response:
    """A file that a browser saves, whatever it thinks of what is in it."""
    disposition = f'attachment; filename="{_NO_FILE_NAME.sub("_", name)}"'
    return Response(content, media_type=media_type, headers={**HEADERS, "Content-Disposition": disposition})


def _missing(request: Request, error: TrilogueError) -> Response:
    """A page for the person who followed the link."""
    status = 404 if isinstance(error, NotFound) else 503
    return page(request, "nothing.html", {"message": error.message}, status)
