"""Events as they happen: over a WebSocket at `/ws`, and as server-sent events for each pipeline."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Header, Query, Request, Response, WebSocket
from pydantic import Field, create_model
from starlette.types import Receive, Scope, Send

from trilogue.api.answers import ALWAYS, OF_ONE
from trilogue.api.conversing import Ending, carry, converse, refusing, send
from trilogue.api.feed import Told, sent_events
from trilogue.api.hub import Hub
from trilogue.api.requests import PipelineInPath, known
from trilogue.api.viewer import Viewer
from trilogue.errors import Invalid
from trilogue.events import DATA
from trilogue.live.ending import end

_MOST_PIPELINES = 100
_LONGEST_AFTER = 10
_RECONNECT = b"retry: 1000\n\n"


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Viewers come and go with the application that includes the router; its services are open by then."""
    services = app.state.services
    async with Hub(services, heartbeat=services.settings.heartbeat_seconds) as hub:
        app.state.hub = hub
        leaving = asyncio.create_task(_leave(hub, app.state.closing))
        yield
        await end(leaving)


async def _leave(hub: Hub, closing: asyncio.Event) -> None:
    """The server waits for those who watch before it ends the application, so they must be sent away before."""
    await closing.wait()
    hub.leave()


router = APIRouter(lifespan=_lifespan)


@router.websocket("/ws")
async def ws(websocket: WebSocket) -> None:
    """Events of some pipelines or of all (DESIGN section 10)."""
    hub: Hub = websocket.app.state.hub
    await websocket.accept()
    async with refusing(websocket):
        wanted = _wanted(websocket.query_params.getlist("pipeline_id"), websocket.query_params.getlist("after"))
        if wanted:
            viewer = Viewer(hub)
            with hub.viewing(viewer):
                await _enter(hub, viewer, wanted)
                await converse(websocket, viewer, heartbeat=hub.heartbeat, patience=hub.patience)
        else:
            async with hub.viewing_all() as (viewer, snapshot):
                await send(websocket, snapshot.text)
                await converse(websocket, viewer, heartbeat=hub.heartbeat, patience=hub.patience)


async def _enter(hub: Hub, viewer: Viewer, wanted: Mapping[str, int | None]) -> None:
    for pipeline_id, after in wanted.items():
        head = (await hub.pipeline(known(pipeline_id))).head_seq
        viewer.add(pipeline_id, _checked(pipeline_id, after, head), least=head)


def _checked(pipeline_id: str, after: int | None, head: int) -> int:
    """Where a viewer begins: after what it has, or with what is still to come."""
    if after is None:
        return head
    if after > head:
        raise Invalid(f"after: pipeline {pipeline_id!r} is at seq {head}, not yet at {after}", code="bad_after")
    return after


def _wanted(pipelines: Sequence[str], afters: Sequence[str]) -> dict[str, int | None]:
    """The pipelines that are asked for, each with the `seq` that the viewer has; none at all is all of them.

    Raises:
        Invalid: a parameter that makes no sense.
    """
    wanted: dict[str, int | None] = dict.fromkeys(pipelines)
    for given in afters:
        pipeline_id, colon, seq = given.rpartition(":")
        if not colon:
            if len(wanted) != 1:
                raise Invalid(
                    f"after={given[:80]!r} does not say of which pipeline: give after=ID:SEQ", code="bad_after"
                )
            pipeline_id = next(iter(wanted))
        wanted[pipeline_id] = _seq(seq)
    if len(wanted) > _MOST_PIPELINES:
        raise Invalid(f"at most {_MOST_PIPELINES} pipelines a connection, not {len(wanted)}", code="too_many_pipelines")
    return wanted


def _seq(given: str) -> int:
    if not (given.isascii() and given.isdecimal() and len(given) <= _LONGEST_AFTER):
        raise Invalid(f"after: a seq is a number from 0 on, not {given[:80]!r}", code="bad_after")
    return int(given)


class EventStream(Response):
    """Server-sent events of one pipeline, until the viewer leaves."""

    media_type = "text/event-stream"

    def __init__(self, hub: Hub, pipeline_id: str, seq: int, head: int, *, until_rest: bool) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._hub = hub
        self._asked = (pipeline_id, seq, head)
        self._until_rest = until_rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        pipeline_id, seq, head = self._asked

        async def write(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        async def tell(event: Told) -> None:
            await write(b": heartbeat\n\n" if event.type == "heartbeat" else sent_events(event))

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        viewer = Viewer(self._hub, until_rest=self._until_rest)
        with self._hub.viewing(viewer), contextlib.suppress(OSError):
            viewer.add(pipeline_id, seq, least=head)
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await write(_RECONNECT)
            if await carry(viewer, tell, gone, patience=self._hub.patience) is Ending.DONE:
                await write(b"", more=False)


_EVENTS = "\n".join(
    f"- `{type_}`: {' '.join((shape.__doc__ or '').split())}"
    for type_, shape in DATA.items()
    if type_ not in {"snapshot", "heartbeat", "error"}
)
_DESCRIPTION = f"""Everything that happens to a pipeline as server-sent events: each with `id` (the entry's `seq`),
`event` (its type) and `data` (the JSON document below), as they happen; `curl -N` shows them. Whoever comes back
with `Last-Event-ID` misses nothing and gets nothing twice. Comments are signs of life. WebSockets get the same
messages at `/ws?pipeline_id=…&after=SEQ`; several pipelines with `after=ID:SEQ` repeated; without any parameter
those of all pipelines, from now on, after a `snapshot`.

{_EVENTS}
"""
_DOCUMENT = create_model(
    "Event",
    __doc__="One message: `data` is as its `type` says.",
    type=(str, Field(json_schema_extra={"enum": list(DATA)})),
    pipeline_id=(str | None, ...),
    seq=(int | None, Field(description="The entry's; null for what is not recorded.")),
    at=(str, ...),
    data=(reduce(or_, DATA.values()), ...),
)
_PROBLEM = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    # Written out: FastAPI would say that errors are event streams, too.
    **{status: {"description": told["description"], "content": _PROBLEM} for status, told in (ALWAYS | OF_ONE).items()},
    200: {"model": _DOCUMENT, "description": "Events, for as long as the connection stands."},
    204: {"description": "With `until=end`: it has ended, and you have everything. A browser comes back no more."},
}


@router.get(
    "/api/pipelines/{pipeline_id}/events",
    response_class=EventStream,
    status_code=200,
    responses=_RESPONSES,
    description=_DESCRIPTION,
    summary="Events as they happen",
    tags=["pipelines"],
)
async def events(
    request: Request,
    pipeline_id: PipelineInPath,
    after: Annotated[
        int | None, Query(ge=0, le=2**31 - 1, description="Begin after this `seq`; else with what is to come.")
    ] = None,
    until: Annotated[Literal["end"] | None, Query(description="End the stream when the pipeline has ended.")] = None,
    last_event_id: Annotated[str | None, Header(description="The last `id` that you have.")] = None,
) -> Response:
    hub: Hub = request.app.state.hub
    row = await hub.pipeline(known(pipeline_id))
    seq = _checked(pipeline_id, _seq(last_event_id) if last_event_id else after, row.head_seq)
    if until and row.status.ended and seq == row.head_seq:
        return Response(status_code=204)
    return EventStream(hub, pipeline_id, seq, row.head_seq, until_rest=until is not None)
