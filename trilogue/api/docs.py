"""The API's description for people at `/docs`, whose parts come with us: it works without the internet."""

from pathlib import Path

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

_PARTS = "/docs/parts"


def install(app: FastAPI) -> None:
    """Add `/docs` and what its page loads."""

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        return get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=app.title,
            swagger_js_url=f"{root}{_PARTS}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{_PARTS}/swagger-ui.css",
            swagger_favicon_url=f"{root}{_PARTS}/favicon.png",
        )

    app.mount(_PARTS, StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static"), name="docs-parts")
