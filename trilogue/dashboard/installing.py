"""Puts the pages onto the API's application, behind its guard."""

from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles

from trilogue.dashboard import pages, socket
from trilogue.dashboard.rendering import ASSETS


class _Assets(StaticFiles):
    """Styles and scripts, under addresses that change with them."""

    def file_response(self, *args: object, **named: object) -> Response:
        response = super().file_response(*args, **named)  # type: ignore[arg-type]  # as Starlette's own
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def install(app: FastAPI) -> FastAPI:
    """Add the pages to an application of `trilogue.api.app.create_app`; returns it."""
    app.include_router(pages.routes)
    app.include_router(socket.routes)
    app.mount("/assets/{version}", _Assets(directory=ASSETS), name="assets")
    app.add_api_route("/{rest:path}", _nothing, methods=["GET"], include_in_schema=False)
    return app


async def _nothing(rest: str, request: Request) -> Response:
    return pages.page(request, "nothing.html", {"message": f"There is no page at /{rest[:200]}."}, 404)
