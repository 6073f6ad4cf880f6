"""The application on a port of its own, and viewers of its events."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from trilogue import clock
from trilogue.api.app import create_app
from trilogue.api.hub import Hub
from trilogue.api.serving import serve
from trilogue.board import fold
from trilogue.dashboard import install
from trilogue.entry import Draft, Entry, Kind
from trilogue.ledger import Fence
from trilogue.ledger.opening import TENANT
from trilogue.phases import checkpoint, spawned
from trilogue.pipeline import Status
from trilogue.services import Services, open_services
from trilogue.settings import load_settings
from trilogue.spec import checked_spec

PATIENCE = 20.0
"""Seconds that a test waits for an event before it fails."""
_SMALL_BUFFER = 4096

Event = dict[str, Any]


@dataclass(kw_only=True)
class Watching:
    """One WebSocket, and what came over it but heartbeats."""

    socket: ClientConnection
    came: list[Event] = field(default_factory=list)
    beats: int = 0

    async def next(self) -> Event:
        """The next event that is no heartbeat."""
        async with asyncio.timeout(PATIENCE):
            while True:
                event: Event = json.loads(await self.socket.recv())
                if event["type"] != "heartbeat":
                    self.came.append(event)
                    return event
                self.beats += 1

    async def until(self, condition: Callable[[Event], bool]) -> Event:
        """The next event that meets the condition; those before it are kept, too."""
        while not condition(event := await self.next()):
            pass
        return event

    async def up_to(self, seq: int) -> None:
        await self.until(lambda event: event["seq"] == seq)

    async def closed(self) -> tuple[int, str]:
        """Code and reason, once the server has closed."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.next()
        assert self.socket.close_code is not None
        return self.socket.close_code, str(self.socket.close_reason)

    @property
    def recorded(self) -> list[Event]:
        return [event for event in self.came if event["seq"] is not None]

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.recorded]


@dataclass(frozen=True, kw_only=True)
class Station:
    """A running application."""

    app: FastAPI
    port: int
    closing: Callable[[], None]

    @property
    def hub(self) -> Hub:
        hub: Hub = self.app.state.hub
        return hub

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def watching(self, query: str = "", *, path: str = "/ws", slow: bool = False) -> AsyncIterator[Watching]:
        """A viewer; a slow one has hardly any buffers, so that the server soon has to wait for it."""
        one = socket.socket()
        if slow:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        one.setblocking(False)
        await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", self.port))
        url = f"ws://127.0.0.1:{self.port}{path}{query and '?'}{query}"
        options: dict[str, Any] = {"max_queue": 1} if slow else {}
        # A test that fails in the middle should not wait for a closing that nobody reads.
        async with connect(url, sock=one, close_timeout=1, ping_interval=None, **options) as connection:
            yield Watching(socket=connection)


@asynccontextmanager
async def station(home: Path, *, ledger_url: str, redis_url: str, **settings: Any) -> AsyncIterator[Station]:
    """The application, served as `trilogue api` serves it."""

    async def on_queued() -> None:
        """No worker is here."""

    plain = {"home": home, "database_url": SecretStr(ledger_url), "redis_url": SecretStr(redis_url)} | settings
    app = install(create_app(load_settings(**plain), may_rehearse=True, on_queued=on_queued))
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL_BUFFER)  # inherited by every connection
    serving = asyncio.create_task(serve(app, listening=listening))
    try:
        async with asyncio.timeout(PATIENCE):
            while not hasattr(app.state, "house"):
                assert not serving.done(), serving
                await asyncio.sleep(0.005)
        yield Station(app=app, port=listening.getsockname()[1], closing=serving.cancel)
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        listening.close()


@dataclass(kw_only=True)
class Scribe:
    """Writes a pipeline's entries as a worker in another process would."""

    services: Services
    fence: Fence
    head: int

    async def write(self, drafts: Sequence[Draft]) -> list[Entry]:
        entries = await self.services.ledger.append(self.fence, drafts, at=clock.now())
        self.services.live.poster.post(entries)
        self.head = entries[-1].seq
        return entries

    async def say(self, count: int = 1, *, length: int = 10) -> None:
        """So many messages in one commit."""
        await self.write([_message(self.head + number, length) for number in range(1, count + 1)])

    async def end(self) -> None:
        """The end that a worker gives to a pipeline that it cannot carry out."""
        board = fold(await self.services.ledger.entries(TENANT, self.fence.pipeline_id))
        error = {"code": "unavailable", "message": "no more"}
        status = Draft(kind=Kind.STATUS, body={"status": Status.FAILED.value, "error": error})
        await self.write([status, *checkpoint(board, "failed", 1, Status.FAILED, board.phase)])


def _message(number: int, length: int) -> Draft:
    body = {"id": f"m{number}", "to": "ALL", "content": "x" * length, "turn": 1}
    return Draft(kind=Kind.MESSAGE, actor="alpha-1", body=body)


async def scribe(services: Services, pipeline_id: str) -> Scribe:
    """A new pipeline with its first entry, and who writes the others."""
    spec = checked_spec(objective="watch")
    drafts = spawned(spec, mode="local", rehearsal=True, model="", timeout=60, agent_timeout=60)
    first = await services.ledger.spawn(TENANT, pipeline_id, drafts, at=clock.now())
    services.live.poster.post(first)
    claim = await services.ledger.claim(TENANT, pipeline_id, owner="scribe", lease_seconds=600, flow_run_id=None)
    return Scribe(services=services, fence=claim.fence, head=1)


@pytest.fixture
async def events_at(tmp_path: Path, migrated_sqlite_url: str, redis_url: str) -> AsyncIterator[Station]:
    """The application over the ledger and Redis of the test."""
    async with station(tmp_path, ledger_url=migrated_sqlite_url, redis_url=redis_url) as running:
        yield running


@pytest.fixture
async def elsewhere(tmp_path: Path, migrated_sqlite_url: str, redis_url: str) -> AsyncIterator[Services]:
    """Another process's services on the same ledger and Redis, as far as one process can be two."""
    plain = {"home": tmp_path, "database_url": SecretStr(migrated_sqlite_url), "redis_url": SecretStr(redis_url)}
    async with open_services(load_settings(**plain)) as services:
        yield services


def in_turn(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


@contextlib.contextmanager
def kept_small(characters: int) -> Iterator[None]:
    """Feeds that keep little, so that whoever falls behind must read the ledger."""
    from trilogue.api import feed  # noqa: PLC0415

    before, feed.CHARACTERS_KEPT = feed.CHARACTERS_KEPT, characters
    try:
        yield
    finally:
        feed.CHARACTERS_KEPT = before
