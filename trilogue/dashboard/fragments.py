"""What a pipeline's page asks for: earlier rows of its log, and what differs between two moments."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from trilogue.api.context import Use
from trilogue.api.loglines import LevelName
from trilogue.api.requests import known
from trilogue.dashboard.comparing import compared
from trilogue.dashboard.pages import HEADERS, page
from trilogue.dashboard.parts import log
from trilogue.dashboard.rendering import render
from trilogue.entry import Entry
from trilogue.errors import Invalid, NotFound, TrilogueError
from trilogue.ledger.opening import TENANT
from trilogue.services import Services

routes = APIRouter(include_in_schema=False)

_BATCH = 500
_MOST_READ = 2_000
"""Entries that one request looks at, at most; whoever asks goes on from `next`."""
_MOST_ROWS = 200

_Seq = Annotated[int, Query(ge=1, le=2**31 - 1)]


@routes.get("/pipelines/{pipeline_id}/log")
async def earlier_rows(
    pipeline_id: str,
    services: Use,
    before: _Seq,
    level: LevelName = "debug",
    actor: log.Actor | None = None,
    kind: log.Group | None = None,
    q: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """`rows`: the last rows before the entry `before` that are wanted, oldest first, as HTML.

    `next`: what to ask for as `before` to get what lies further back; null at the pipeline's beginning.
    """
    choice = log.Choice(level=level, actor=actor, group=kind, text=q)
    row = await services.ledger.get_pipeline(TENANT, known(pipeline_id))
    rows, following = await _rows(services, pipeline_id, min(before, row.head_seq + 1), choice)
    return JSONResponse({"rows": rows, "next": following if following > 1 else None}, headers=HEADERS)


async def _rows(services: Services, pipeline_id: str, before: int, choice: log.Choice) -> tuple[list[str], int]:
    roles = {agent.agent_id: agent.role.value for agent in await services.ledger.agents(TENANT, pipeline_id)}
    rows, least = list[str](), before - _MOST_READ
    while before > max(1, least):
        after = max(0, before - 1 - _BATCH)
        entries = await services.ledger.entries(TENANT, pipeline_id, after=after, limit=before - 1 - after)
        for entry in reversed(entries):
            shown = log.shown_as(roles.get(entry.actor, entry.actor), entry)
            if choice.takes(shown):
                rows.append(render("parts/log_row.html", shown))
                if len(rows) == _MOST_ROWS:
                    return rows[::-1], entry.seq
        before = after + 1
    return rows[::-1], before


@routes.get("/pipelines/{pipeline_id}/compare")
async def compare(
    pipeline_id: str,
    request: Request,
    services: Use,
    first: Annotated[int, Query(alias="from", ge=1, le=2**31 - 1)],
    second: Annotated[int, Query(alias="to", ge=1, le=2**31 - 1)],
) -> Response:
    """What differs on the board between two entries, as a page of its own; the pipeline's page takes its middle."""
    try:
        entries = await _entries(services, pipeline_id, max(first, second))
    except TrilogueError as error:
        status = 404 if isinstance(error, NotFound | Invalid) else 503
        return page(request, "nothing.html", {"message": error.message}, status)
    sections = await asyncio.to_thread(compared, entries, first, second)
    context = {"pipeline_id": pipeline_id, "first": first, "second": second, "sections": sections}
    return page(request, "compare.html", context)


async def _entries(services: Services, pipeline_id: str, until: int) -> list[Entry]:
    row = await services.ledger.get_pipeline(TENANT, known(pipeline_id))
    if until > row.head_seq:
        raise Invalid(f"{pipeline_id} has entries 1 to {row.head_seq}", code="bad_seq")
    return await services.ledger.entries(TENANT, pipeline_id, limit=until)
