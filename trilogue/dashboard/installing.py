"""Puts the pages onto the API's application, behind its guard."""

from os import PathLike, stat_result

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from trilogue.dashboard import downloads, fragments, home, pages, socket
from trilogue.dashboard.rendering import ASSETS, assets_version


class _Assets(StaticFiles):
    """Styles and scripts, under addresses that change with them."""

    def file_response(
        self, full_path: PathLike[str] | str, stat_result: stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        # While servers are replaced one by one, a page of another version asks for what is not here.
        ours = scope["path_params"]["version"] == assets_version()
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if ours else "no-store"
        return response


def install(app: FastAPI) -> FastAPI:
    """Add the pages to an application of `trilogue.api.app.create_app`; returns it."""
    for router in (home.routes, pages.routes, downloads.routes, fragments.routes):
        for route in router.routes:
            if isinstance(route, APIRoute):
                route.methods = {*(route.methods or ()), "HEAD"}  # as for any page of the web
        app.include_router(router)
    app.include_router(socket.routes)
    app.mount("/assets/{version}", _Assets(directory=ASSETS), name="assets")
    app.add_api_route("/{rest:path}", _nothing, methods=["GET"], include_in_schema=False)
    return app


async def _nothing(rest: str, request: Request) -> Response:
    """Where nothing is: a page for people, and for programs what the API answers everywhere."""
    if "text/html" not in request.headers.get("accept", ""):
        raise HTTPException(404)
    return pages.page(request, "nothing.html", {"message": f"There is no page at /{rest[:200]}."}, 404)
