"""Connections that send nothing, or too slowly, are dropped while others are served; the end comes in time."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.fixtures.api import OBJECTIVE, Api
from trilogue.api import serving
from trilogue.entry import Entry

SHORT = 0.4
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_SILENT_LIMITS", {"head": SHORT, "body": SHORT})


@contextlib.asynccontextmanager
async def connections(api: Api, number: int) -> AsyncIterator[list[Stream]]:
    port = httpx.URL(api.url).port
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(number)]
    yield opened
    for _, writer in opened:
        writer.close()


async def dropped_after(stream: Stream, *pieces: bytes, every: float = 0.05) -> float:
    """Seconds until the server drops a connection on which `pieces` come, the last one again and again."""
    reader, writer = stream
    began = time.monotonic()

    async def drip() -> None:
        waiting = list(pieces)
        while waiting:
            writer.write(waiting.pop(0) if len(waiting) > 1 else waiting[0])
            await writer.drain()
            await asyncio.sleep(every)

    dripping = asyncio.create_task(drip())
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            await reader.read()
    dripping.cancel()
    await asyncio.gather(dripping, return_exceptions=True)
    return time.monotonic() - began


async def test_who_sends_nothing_or_a_byte_at_a_time_is_dropped(api: Api) -> None:
    head = b"POST /api/spawn HTTP/1.1\r\nHost: " + httpx.URL(api.url).netloc + b"\r\n"
    json_head = head + b"Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    refused = head.replace(b"/api/spawn", b"/api/nothing") + b"Content-Length: 100000\r\n\r\n"
    async with connections(api, 5) as (silent, slow_head, slow_body, unread_body, after_answer):
        get = b"GET /healthz HTTP/1.1\r\nHost: " + httpx.URL(api.url).netloc + b"\r\n\r\n"
        took = await asyncio.gather(
            dropped_after(silent),
            dropped_after(slow_head, head, b"X"),
            dropped_after(slow_body, json_head, b" "),
            dropped_after(unread_body, refused, b" "),
            dropped_after(after_answer, get, b"G"),
        )
    assert all(SHORT * 0.8 < seconds < 4 for seconds in took), took


async def test_a_thousand_silent_connections_keep_nobody_from_being_served(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_SILENT_LIMITS", {"head": 2.0, "body": 2.0})
    async with connections(api, 1000) as silent:
        began = time.monotonic()
        for _ in range(5):
            assert (await api.client.get("/healthz")).status_code == 200
        await api.spawn()
        assert time.monotonic() - began < 3
        async with asyncio.timeout(20):
            for reader, _ in silent:
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""


async def test_an_answer_that_takes_long_is_waited_for(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    spawn = api.services.ledger.spawn

    async def slow(*given: object, **named: object) -> list[Entry]:
        await asyncio.sleep(3 * SHORT)
        return await spawn(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(api.services.ledger, "spawn", slow)
    await api.spawn()


async def test_a_request_under_way_is_answered_while_websockets_and_idle_connections_are_closed(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn, begun = api.services.ledger.spawn, asyncio.Event()

    async def slow(*given: object, **named: object) -> list[Entry]:
        begun.set()
        await asyncio.sleep(0.3)
        return await spawn(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(api.services.ledger, "spawn", slow)
    async with connect(api.url.replace("http", "ws") + "/ws", proxy=None) as socket, connections(api, 3):
        asking = asyncio.create_task(api.client.post("/api/spawn", json={"objective": OBJECTIVE}))
        await begun.wait()
        began = time.monotonic()
        api.serving.cancel()
        assert (await asking).status_code == 202
        await asyncio.wait({api.serving})
        assert time.monotonic() - began < 5
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.recv()
    assert socket.close_code in {1001, 1012}
    with pytest.raises(httpx.TransportError):
        await api.client.get("/healthz")
