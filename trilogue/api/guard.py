"""What stands in front of everything, HTTP and WebSocket: who may talk to us at all.

A web page elsewhere must not drive a local Trilogue: so the Host must be one of ours (DNS rebinding), and an
Origin that a browser sends must be the very page's or an allowed one (CSRF, WebSocket included). With a key
configured, every request needs it, but `/healthz`. Each request gets an id, and a line in the log.
"""

import contextlib
import logging
import re
import secrets
import time
from collections.abc import Iterable
from hmac import compare_digest
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from fastapi.responses import Response
from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trilogue.api.errors import problem

logger = logging.getLogger(__name__)

SUBPROTOCOL: Final = "trilogue"
"""What a browser's WebSocket offers, with `bearer.<key>` beside it: it can set no header, and a URL would leak."""

_BEARER = "bearer."
_OPEN_PATHS = frozenset({"/healthz"})
_GOOD_ID = re.compile(r"[A-Za-z0-9._\-]{1,128}")
_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_SENDABLE = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-API-Key, X-Request-ID"
_READABLE = "Idempotent-Replayed, Retry-After, X-Request-ID"


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, *, key: SecretStr | None, hosts: Iterable[str], origins: Iterable[str]) -> None:
        """
        Args:
            key: what callers must show; None lets everybody in.
            hosts: names under which we are reached besides loopback's, with or without a port.
            origins: pages elsewhere that may use the API, such as `https://tools.example.com`.
        """
        self._app = app
        self._key = key.get_secret_value().encode() if key else None
        self._hosts = {host.strip().lower() for host in hosts if host.strip()}
        self._origins = {origin.strip().lower().rstrip("/") for origin in origins if origin.strip()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        began, connection = time.monotonic(), HTTPConnection(scope)
        given = connection.headers.get("x-request-id", "")
        id_ = given if _GOOD_ID.fullmatch(given) else secrets.token_hex(10)
        scope.setdefault("state", {})["request_id"] = id_
        origin = connection.headers.get("origin")
        offered = _offered(scope)
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                status = message["status"]
                self._mark(MutableHeaders(scope=message), id_, origin)
            elif message["type"] == "websocket.accept":
                status = 101
                if SUBPROTOCOL in offered:  # a browser gives up unless one that it offered is chosen
                    message = {**message, "subprotocol": SUBPROTOCOL}
            await send(message)

        try:
            if refusal := self._refusal(connection, origin, offered):
                await _refuse(scope, receive, sent, refusal)
            else:
                _forget_key(scope)
                await self._app(scope, receive, sent)
        except Exception:
            logger.exception("request %s failed: %s %r", id_, scope.get("method", "WS"), scope["path"])
            if not status:
                detail = "something unexpected went wrong; the server's log tells more under this request id"
                await _refuse(scope, receive, sent, problem(connection, 500, "internal_error", detail))
            elif scope["type"] == "websocket":
                with contextlib.suppress(Exception):  # closed already
                    await send({"type": "websocket.close", "code": 1011, "reason": ""})
            else:
                raise  # the answer was cut off: only the server can say so, by closing the connection
        finally:
            took = 1000 * (time.monotonic() - began)
            logger.info("%s %s %r %s %.0f ms", id_, scope.get("method", "WS"), scope["path"], status or "-", took)

    def _refusal(self, connection: HTTPConnection, origin: str | None, offered: list[str]) -> Response | None:
        """The answer to a request that may not pass."""
        host = connection.headers.get("host", "")
        if not self._known_host(host, connection.scope.get("server")):
            detail = (
                f"this is no name of ours: {host[:200]!r}; add it to TRILOGUE_ALLOWED_HOSTS if it is to be, "
                "or use the address under which the server listens"
            )
            return problem(connection, 421, "unknown_host", detail)
        if origin is not None and not self._known_origin(origin, host):
            detail = f"pages of {origin[:200]!r} may not use this; TRILOGUE_ALLOWED_ORIGINS lists those that may"
            return problem(connection, 403, "unknown_origin", detail)
        if origin is not None and connection.scope.get("method") == "OPTIONS" and _asks_first(connection.headers):
            return Response(status_code=204)
        if self._key is None or connection.scope["path"] in _OPEN_PATHS or self._shown(connection.headers, offered):
            return None
        detail = "show the key of TRILOGUE_API_KEY: `Authorization: Bearer …` or `X-API-Key: …`"
        return problem(connection, 401, "unauthenticated", detail, {"WWW-Authenticate": "Bearer"})

    def _known_host(self, host: str, server: tuple[str, int | None] | None) -> bool:
        """Loopback, or the very address that was connected to, under the port that we listen at; or a configured name.

        An address cannot be rebound as a name can.
        """
        host = host.lower()
        if host in self._hosts:
            return True
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname or "", parts.port
        except ValueError:
            return False
        if parts.username is not None or parts.path or parts.query or parts.fragment:
            return False
        if name in self._hosts:
            return True
        if server is None or server[1] is None:  # a Unix socket
            return _loopback(name)
        return (_loopback(name) or name == server[0]) and (port or 80) == server[1]

    def _known_origin(self, origin: str, host: str) -> bool:
        if origin.lower() in self._origins:
            return True
        try:
            page, here = urlsplit(origin.lower()), urlsplit(f"//{host.lower()}")
            usual = _DEFAULT_PORTS.get(page.scheme)
            there, ours = (page.hostname, page.port or usual), (here.hostname, here.port or usual)
        except ValueError:
            return False
        return usual is not None and page.hostname is not None and there == ours

    def _shown(self, headers: Headers, offered: list[str]) -> bool:
        """Whether the key was shown, in any of the places for it; every comparison takes the same time."""
        assert self._key is not None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        shown = [
            bearer.strip() if scheme.lower() == "bearer" else "",
            headers.get("x-api-key", ""),
            next((one.removeprefix(_BEARER) for one in offered if one.startswith(_BEARER)), ""),
        ]
        return sum(compare_digest(one.encode("latin-1", "replace"), self._key) for one in shown) > 0

    def _mark(self, headers: MutableHeaders, id_: str, origin: str | None) -> None:
        headers["X-Request-ID"] = id_
        headers["X-Content-Type-Options"] = "nosniff"
        if self._origins:
            headers.add_vary_header("Origin")
        if origin is None or origin.lower() not in self._origins:
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            return
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Allow-Methods"] = "GET, POST"
        headers["Access-Control-Allow-Headers"] = _SENDABLE
        headers["Access-Control-Expose-Headers"] = _READABLE
        headers["Access-Control-Max-Age"] = "600"


def _loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _asks_first(headers: Headers) -> bool:
    return "access-control-request-method" in headers


def _offered(scope: Scope) -> list[str]:
    return list(scope.get("subprotocols", ())) if scope["type"] == "websocket" else []


def _forget_key(scope: Scope) -> None:
    """What lies behind us has no use for the key."""
    secret = {b"authorization", b"x-api-key", b"sec-websocket-protocol"}
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in secret]
    if "subprotocols" in scope:
        scope["subprotocols"] = [one for one in scope["subprotocols"] if not one.startswith(_BEARER)]


async def _refuse(scope: Scope, receive: Receive, send: Send, answer: Response) -> None:
    """Answer a request, or a WebSocket's handshake, which is refused by HTTP where the server can."""
    if scope["type"] == "http":
        await answer(scope, receive, send)
    elif "websocket.http.response" in scope.get("extensions", {}):
        await send(
            {"type": "websocket.http.response.start", "status": answer.status_code, "headers": answer.raw_headers}
        )
        await send({"type": "websocket.http.response.body", "body": answer.body})
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
