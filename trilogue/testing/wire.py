"""HTTP/1.1 on a loopback socket, for servers that must be able to misbehave.

An ordinary server framework always ends what it began. A test needs one that goes silent,
drops the connection between two bytes, and notices at once when the client has gone.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import h11

_PIECE = 65_536


class Exchange:
    """One request and the means to answer it, in pieces or not at all."""

    def __init__(self, connection: h11.Connection, writer: asyncio.StreamWriter, request: h11.Request, body: bytes):
        self._connection = connection
        self._writer = writer
        self.method = request.method.decode("ascii")
        self.path = request.target.decode("ascii")
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        self.body = body

    def json(self) -> Any:
        """The request's body; `None` if it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    async def answer(self, status: int, body: bytes, *, headers: Mapping[str, str]) -> None:
        """Send a whole response."""
        await self.begin(status, headers={"content-length": str(len(body)), **headers})
        await self.send(body)
        await self.end()

    async def begin(self, status: int, *, headers: Mapping[str, str]) -> None:
        """Send status and headers; the body follows with `send`."""
        await self._emit(h11.Response(status_code=status, headers=list(headers.items())))

    async def send(self, piece: bytes) -> None:
        await self._emit(h11.Data(data=piece))

    async def end(self) -> None:
        await self._emit(h11.EndOfMessage())

    def drop(self) -> None:
        """Cut the connection where it stands."""
        self._writer.transport.abort()

    async def _emit(self, event: h11.Event) -> None:
        if wire := self._connection.send(event):
            self._writer.write(wire)
            await self._writer.drain()


Serve = Callable[[Exchange], Awaitable[None]]


class Listener:
    """A listening socket and how often it was connected to.

    Attributes:
        url: `http://127.0.0.1:PORT`, without a path.
        connections: TCP connections accepted so far.
    """

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._open: set[asyncio.Task[None]] = set()
        self.url = ""
        self.connections = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, h11.ProtocolError, asyncio.CancelledError):
            pass  # the client went, or this server ends: nobody is left to tell
        finally:
            self._open.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def close(self) -> None:
        """Cut every connection."""
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        while exchange := await _next_request(connection, reader, writer):
            serving = asyncio.ensure_future(self._serve(exchange))
            listening = asyncio.ensure_future(reader.read(_PIECE))
            try:
                await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
                if listening.done() and (early := listening.result()):
                    connection.receive_data(early)  # the next request, before this one is answered
                    await asyncio.wait({serving})
            finally:
                gone = not serving.done()
                for task in (serving, listening):
                    task.cancel()
                await asyncio.gather(serving, listening, return_exceptions=True)
            if not gone:
                serving.result()
            if gone or connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()


async def _next_request(
    connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Exchange | None:
    request: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_PIECE))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return Exchange(connection, writer, request, bytes(body))
        else:
            return None


@asynccontextmanager
async def listening(serve: Serve, *, port: int = 0) -> AsyncIterator[Listener]:
    """Serve every request on 127.0.0.1 with `serve`, which is cancelled when its client goes; 0 is any free port."""
    listener = Listener(serve)
    server = await asyncio.start_server(listener.accept, "127.0.0.1", port)
    listener.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield listener
    finally:
        server.close()
        await listener.close()
        await server.wait_closed()
