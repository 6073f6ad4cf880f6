"""The pages' WebSocket: what changed on a pipeline's page, or that the list of pipelines has news."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, WebSocket

from trilogue import clock
from trilogue.api.conversing import converse, refusing, send
from trilogue.api.requests import known
from trilogue.dashboard.house import House
from trilogue.dashboard.rendering import assets_version, prepare
from trilogue.live.ending import end
from trilogue.live.notice import dumps


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Pages come and go with the application; its services are open by then."""
    services = app.state.services
    async with House(services, heartbeat=services.settings.heartbeat_seconds) as house:
        app.state.house = house
        preparing = asyncio.create_task(asyncio.to_thread(prepare))
        leaving = asyncio.create_task(_leave(house, app.state.closing))
        yield
        await end(leaving)
        await preparing


async def _leave(house: House, closing: asyncio.Event) -> None:
    await closing.wait()
    house.leave()


def _hello() -> str:
    """What a page must know of its server: which styles and scripts are its own, and what time it is there."""
    return dumps({"type": "hello", "assets": assets_version(), "at": clock.iso(clock.now())})


routes = APIRouter(lifespan=_lifespan)


@routes.websocket("/live")
async def live(
    websocket: WebSocket, pipeline_id: Annotated[str, Query()], seq: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0
) -> None:
    """Tell one page what it does not have; `seq` is that of its log's last row."""
    house: House = websocket.app.state.house
    await websocket.accept()
    async with refusing(websocket), house.seated(known(pipeline_id), seq) as seat:
        await send(websocket, _hello())
        await converse(websocket, seat, heartbeat=house.heartbeat, patience=house.patience)


@routes.websocket("/live/list")
async def live_list(websocket: WebSocket) -> None:
    """Tell a page that lists pipelines when it should look again."""
    house: House = websocket.app.state.house
    await websocket.accept()
    async with refusing(websocket), house.looking(websocket.app.state.hub) as lookout:
        await send(websocket, _hello())
        await converse(websocket, lookout, heartbeat=house.heartbeat, patience=house.patience)
