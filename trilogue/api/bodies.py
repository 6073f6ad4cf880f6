"""Reading request bodies: JSON only, within a limit, and strict where the standard library is not."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from trilogue.api.errors import Refused

LONGEST = 1024 * 1024
"""Bytes of a request's body: guidance of 32,768 characters fits, however it is escaped."""

LONGEST_SPAWN = 9 * 1024 * 1024
"""Bytes of a spawn's body: 32 context documents of 256 KiB fit where little must be escaped."""


class JsonRoute(APIRoute):
    """A route whose body, if it takes any, is JSON."""

    longest = LONGEST

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_JsonRequest(request, self.longest) if self.body_field else request)

        return handle


class SpawnRoute(JsonRoute):
    """A route whose body may hold context documents."""

    longest = LONGEST_SPAWN


class _JsonRequest(Request):
    def __init__(self, request: Request, longest: int) -> None:
        super().__init__(request.scope, request.receive)
        self._longest = longest

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            declared = self.headers.get("content-length", "")
            if declared.isdecimal() and int(declared) > self._longest:
                raise self._too_large()
            read = bytearray()
            async for chunk in self.stream():
                read += chunk
                if len(read) > self._longest:
                    raise self._too_large()
            self._body = bytes(read)
            if self._body and not _says_json(self.headers.get("content-type", "")):
                raise Refused(
                    415, "unsupported_media_type", "send the body as JSON, with Content-Type: application/json"
                )
        return self._body

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            try:
                self._json = from_json(await self.body(), allow_inf_nan=False)
            except ValueError as error:
                raise Refused(422, "invalid_json", f"the body is no JSON: {error}") from None
        return self._json

    def _too_large(self) -> Refused:
        return Refused(413, "too_large", f"the body has more than {self._longest:,} bytes")


def _says_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
