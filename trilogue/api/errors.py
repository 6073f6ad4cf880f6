"""Errors as the API tells them: one shape, and one table from families to HTTP statuses.

Whatever is raised on purpose, by us, FastAPI or Starlette, ends here; what is unexpected, in the guard.
"""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect, HTTPConnection

from trilogue.errors import Conflict, Denied, Exhausted, Invalid, NotFound, TrilogueError, Unavailable

logger = logging.getLogger(__name__)

_FAMILIES: Mapping[type[TrilogueError], int] = {
    Invalid: 422,
    NotFound: 404,
    Conflict: 409,
    Denied: 403,
    Exhausted: 429,
    Unavailable: 503,
}
_BY_CODE = {"bad_database": 500, "database_revision": 503, "closed": 503}
"""Faults of the installation, whatever their family: the request is not to blame."""

_CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "denied",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
}
_RETRY_AFTER = {"Retry-After": "2"}
_SHOWN_ERRORS = 5
_LONGEST_SHOWN = 80


class Problem(BaseModel):
    """What went wrong."""

    error: str = Field(description="A stable name, such as `no_pipeline`.", examples=["no_pipeline"])
    detail: str = Field(description="In words, with what to do.", examples=["no pipeline 'p-7k3m9q2xw4bd'"])
    request_id: str = Field(description="As in the answer's `X-Request-ID`.", examples=["1c9f0e0b5a7d4f4f8d53"])


class Refused(HTTPException):
    """A request that is refused before anything of ours is asked, under a `code` of its own."""

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.code = code


def request_id(connection: HTTPConnection) -> str:
    """The id under which the guard lets this request run."""
    return str(connection.scope.get("state", {}).get("request_id", ""))


def problem(
    connection: HTTPConnection,
    status: int,
    code: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> JSONResponse:
    """The answer that tells of an error."""
    body = {"error": code, "detail": detail, "request_id": request_id(connection), **more}
    return JSONResponse(body, status, headers)


def answer_for(connection: HTTPConnection, error: TrilogueError, **more: Any) -> JSONResponse:
    """The answer that tells of one of our own errors."""
    family = next((status for kind, status in _FAMILIES.items() if isinstance(error, kind)), 500)
    status = _BY_CODE.get(error.code, family)
    if status == 500:
        logger.error("request %s: %s", request_id(connection), error.message)
    headers = _RETRY_AFTER if status == 503 else None
    return problem(connection, status, error.code, error.message, headers, **more)


def told(errors: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The code and the words for what pydantic found wrong with a request: which field, what, and its value."""
    lines = [_line(error) for error in errors[:_SHOWN_ERRORS]]
    if len(errors) > _SHOWN_ERRORS:
        lines.append(f"and {len(errors) - _SHOWN_ERRORS} more")
    return f"invalid_{_where(errors[0])[0].replace('-', '_').lower()}", "; ".join(lines)


def _line(error: Mapping[str, Any]) -> str:
    what = str(error["msg"]).removeprefix("Value error, ")
    value = error.get("input")
    plain = isinstance(value, str | int | float) and error["type"] != "missing"
    shown = f" (given: {value!r})" if plain and len(str(value)) <= _LONGEST_SHOWN else ""
    return f"{'.'.join(_where(error))}: {what[:1].lower()}{what[1:]}{shown}"


def _where(error: Mapping[str, Any]) -> list[str]:
    """The field's path within query, path, headers or body; names that the sender made up are cut."""
    place = [str(part)[:_LONGEST_SHOWN] for part in error["loc"][1:] if part != "[key]"]
    return place or ["request" if error["loc"][:1] != ("body",) else "body"]


def install(app: FastAPI) -> None:
    """Have `app` answer every error in the one shape."""
    app.add_exception_handler(TrilogueError, _ours)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(StarletteHTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, TrilogueError)
    return answer_for(request, error)


async def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem(request, 422, *told(error.errors()))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    status = error.status_code
    code = error.code if isinstance(error, Refused) else _CODES.get(status, HTTPStatus(status).name.lower())
    detail = str(error.detail)
    if not isinstance(error, Refused) and status in {404, 405}:
        path = request.url.path
        detail = f"nothing is at {path!r}" if status == 404 else f"{path!r} does not take {request.method}"
    return problem(request, status, code, detail, error.headers)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it
