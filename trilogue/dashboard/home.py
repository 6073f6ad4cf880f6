"""The routes of the home page: what can be asked for, and the list of what was; and that list by itself."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, Response

from trilogue.api.context import Use
from trilogue.dashboard.listing import MOST_COUNTED, PER_PAGE, Wanted, listed, unlisted
from trilogue.dashboard.pages import HEADERS, page
from trilogue.dashboard.rendering import render
from trilogue.dashboard.spawning import offered
from trilogue.errors import Invalid, TrilogueError
from trilogue.ledger.opening import TENANT
from trilogue.services import Services

routes = APIRouter(include_in_schema=False)

_BAD_QUERY: Final = frozenset({"bad_cursor", "invalid_project", "invalid_search"})


# Not by FastAPI's rules, whose answer to a bad address would be no page.
async def _wanted(request: Request) -> Wanted:
    given = request.query_params
    return Wanted.of(*(given.get(name, "") for name in ("q", "state", "project", "cursor")))


_Wanted = Annotated[Wanted, Depends(_wanted)]


@routes.get("/")
async def home(request: Request, wanted: _Wanted, services: Use) -> Response:
    """What can be asked for, and what was."""
    shown, status = await _list(services, wanted)
    offer = offered(services.settings, may_rehearse=request.app.state.may_rehearse)
    return page(request, "home.html", {**shown, **offer}, status)


@routes.get("/list")
async def pipelines(wanted: _Wanted, services: Use) -> Response:
    """The list of the page of the same query; where the ledger is away, the status says so."""
    shown, status = await _list(services, wanted)
    return HTMLResponse(render("list.html", shown), status, HEADERS)


async def _list(services: Services, wanted: Wanted) -> tuple[Mapping[str, Any], int]:
    try:
        if "\0" in wanted.project:
            raise Invalid("project: has a character that no name has", code="invalid_project")
        ledger = services.ledger
        found = await ledger.list_pipelines(
            TENANT,
            limit=PER_PAGE,
            cursor=wanted.cursor or None,
            statuses=wanted.chosen.statuses,
            project=wanted.project or None,
            search=wanted.q,
        )
        costs = await ledger.costs(TENANT, [row.pipeline_id for row in found.items])
        open_ = await ledger.current(TENANT, ended_within=0, limit=MOST_COUNTED + 1)
    except TrilogueError as error:
        return unlisted(wanted, error.message), 422 if error.code in _BAD_QUERY else 503
    return listed(found, costs, open_, wanted), 200
