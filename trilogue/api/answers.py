"""What every route may answer besides its own document, for OpenAPI; and the routers that say so."""

from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from pydantic import Field

from trilogue.api.bodies import JsonRoute
from trilogue.api.errors import Problem

Responses = dict[int | str, dict[str, Any]]


class Taken(Problem):
    """A conflict, which for an external id that is taken names the pipeline that has it."""

    pipeline_id: str | None = Field(None, description="The pipeline that bears the external id.")


_WORDS = {
    401: "The key of `TRILOGUE_API_KEY` is missing or wrong.",
    403: "Refused: a web page elsewhere asked, or a model endpoint turns its key down.",
    404: "There is no such thing.",
    409: "Not in this state; the detail names the present status and what may follow.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    421: "The Host is none of ours.",
    422: "Something in the request cannot be used: which field, and why.",
    429: "A budget or quota is spent.",
    500: "Something unexpected went wrong.",
    503: "The ledger or a model endpoint is out of reach; try again.",
}


def problems(*statuses: int) -> Responses:
    """The errors that a route may answer with, besides those that any may."""
    return {status: {"model": Problem, "description": _WORDS[status]} for status in statuses}


ALWAYS = problems(401, 403, 421, 500)
READING = problems(422, 503)
OF_ONE = problems(404, 422, 503)
ACTING = problems(404, 409, 413, 415, 422, 429, 503)
SPAWNING: Responses = {
    **problems(413, 415, 422, 429, 503),
    409: {"model": Taken, "description": "The external id is taken, or the idempotency key is being worked on."},
}


def router(tag: str, *, route_class: type[APIRoute] = JsonRoute) -> APIRouter:
    """A router whose routes say what any of them may answer."""
    return APIRouter(prefix="/api", tags=[tag], responses=ALWAYS, route_class=route_class)


def described(app: FastAPI) -> None:
    """OpenAPI of what is so on every route: the key, the request id, and our shape where FastAPI puts its own."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        schema = make()
        parts = schema.setdefault("components", {})
        parts["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": "Where `TRILOGUE_API_KEY` is set."},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        schema["security"] = [{}, {"bearer": []}, {"key": []}]
        for name in ("HTTPValidationError", "ValidationError"):
            parts.get("schemas", {}).pop(name, None)
        app.openapi_schema = schema
        return schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to change it
