"""The HTTP server under the application: uvicorn, which ends in time and drops connections that send nothing."""

import asyncio
import contextlib
import json
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from trilogue.errors import Conflict, Invalid

HEAD_SECONDS = 10.0
"""Within which a request must have come up to the end of its head: after the connection, or the answer before."""

BODY_SECONDS = 30.0
"""Within which a request's body must have come."""

GRACE_SECONDS = 3
"""For requests that are being answered when the server is told to end; then they are cancelled."""

_BACKLOG = 2048
_LONGEST_FROM_VIEWERS = 65_536
_OPEN_FILES = 16_384
_HIGHEST_PORT = 65_535
_SILENT_LIMITS = {"head": HEAD_SECONDS, "body": BODY_SECONDS}


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that waits for a caller only so long; uvicorn alone waits for ever."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._awaited: tuple[str, Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_websocket = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        connected = transport.get_extra_info("socket")
        if connected is not None and connected.family in {socket.AF_INET, socket.AF_INET6}:
            # asyncio does so itself only where the listening socket was made with its protocol's number, and without
            # it each answer waits 40 ms for the caller's acknowledgement of its head.
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._is_websocket = True
        self._stop_waiting()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """In the shape of all errors; there is no request yet whose id it could bear."""
        body = json.dumps({"error": "bad_request", "detail": msg, "request_id": ""}).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        headers.append((b"content-length", str(len(body)).encode()))
        with contextlib.suppress(h11.LocalProtocolError):  # it broke in the middle of an answer
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _wait(self) -> None:
        """Let the time run in which the next thing must come; it runs on where that is the same as before."""
        awaited = None if self._is_websocket else self._what_is_awaited()
        if awaited == self._awaited:
            return
        self._stop_waiting()
        self._awaited = awaited
        if awaited:
            self._timer = self.loop.call_later(_SILENT_LIMITS[awaited[0]], self._give_up)

    def _what_is_awaited(self) -> tuple[str, Any] | None:
        """The head or body of which request; nothing while the application has all that it needs."""
        if self.transport.is_closing():
            return None
        if self.cycle is None or self.cycle.response_complete:
            return "head", self.cycle
        return ("body", self.cycle) if self.cycle.more_body else None

    def _stop_waiting(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._awaited = None

    def _give_up(self) -> None:
        self._timer = None
        self.transport.abort()


class _Server(uvicorn.Server):
    """Signals are `serve`'s, which runs it beside other things."""

    def __init__(self, config: uvicorn.Config, closing: asyncio.Event) -> None:
        super().__init__(config)
        self._closing = closing

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._closing.set()  # streams that have no end of their own end now
        await super().shutdown(sockets)


async def serve(
    app: FastAPI, *, host: str = "127.0.0.1", port: int = 3000, listening: socket.socket | None = None
) -> None:
    """Serve until SIGINT, SIGTERM or cancelled; open requests then have a few seconds, WebSockets close with 1012.

    Args:
        listening: a socket that listens already; then host and port are not looked at.

    Raises:
        Invalid: others than this machine could reach it and no key is set, or the host cannot be used.
        Conflict: the port is taken.
        TrilogueError: what `open_services` raises.
    """
    settings = app.state.settings
    check_exposure(listening.getsockname()[0] if listening else host, has_key=settings.api_key is not None)
    listener = listening or listen(host, port)
    _allow_many_connections()
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="websockets-sansio",
        ws_max_size=_LONGEST_FROM_VIEWERS,
        ws_per_message_deflate=False,  # would pack each event anew for each viewer
        lifespan="off",  # entered here, so that what it raises is raised by `serve`
        log_config=None,
        access_log=False,  # the guard writes a line for each request, with its id
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(HEAD_SECONDS),
        timeout_graceful_shutdown=GRACE_SECONDS,
        backlog=_BACKLOG,
    )
    server = _Server(config, app.state.closing)

    def end() -> None:
        server.should_exit = True

    with _told_by_signals(end):
        async with app.router.lifespan_context(app):
            serving = asyncio.ensure_future(server.serve(sockets=[listener]))
            try:
                await asyncio.shield(serving)
            except asyncio.CancelledError:
                end()
                await serving
                raise


def check_exposure(host: str, *, has_key: bool) -> None:
    """Raise `Invalid` where others than this machine could reach a server that asks for no key."""
    if not has_key and not _is_loopback(host):
        raise Invalid(
            f"anybody who reaches {host!r} could drive Trilogue and spend its budget: set TRILOGUE_API_KEY, "
            "which every request must then show, or listen on 127.0.0.1",
            code="exposed",
        )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        Conflict: the port is taken.
        Invalid: the address cannot be used.
    """
    if not 0 <= port <= _HIGHEST_PORT:  # of a higher one getaddrinfo takes the remainder
        raise Invalid(f"cannot listen at port {port}: a port is a number from 0 to {_HIGHEST_PORT}", code="bad_address")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == 98:
            raise Conflict(
                f"port {port} of {host!r} is taken: end what listens there, or choose another with --port",
                code="port_taken",
            ) from None
        why = getattr(error, "strerror", None) or error
        raise Invalid(f"cannot listen at {host!r}, port {port}: {why}", code="bad_address") from None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _allow_many_connections() -> None:
    """A thousand silent connections must leave room for others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def _told_by_signals(end: Any) -> Iterator[None]:
    """Only the main thread hears signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    signs = (signal.SIGINT, signal.SIGTERM)
    for sign in signs:
        loop.add_signal_handler(sign, end)
    try:
        yield
    finally:
        for sign in signs:
            loop.remove_signal_handler(sign)
