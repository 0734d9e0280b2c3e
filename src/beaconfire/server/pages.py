"""Static files: the browser client at `/client/`, and the demo page at `/`."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_WEB: Final = Path(__file__).parent.parent / "web"
_CLIENT: Final = _WEB / "client"
_DEMO: Final = _WEB / "demo"

_SCRIPT_HEADERS: Final = {
    "Access-Control-Allow-Origin": "*",  # pages of any site may import the client; `allowed_origins` is checked later
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

PAGE_PATHS: Final = ("/", "/demo/{file:path}", "/client/{file}")
"""The paths of all pages, as metrics and logs show them."""


def client_routes() -> list[BaseRoute]:
    """One route for each module of the browser client."""
    return [Route(f"/client/{path.name}", _script(path)) for path in sorted(_CLIENT.glob("*.js"))]


def demo_routes() -> list[BaseRoute]:
    return [Route("/", _page(_DEMO / "index.html")), Mount("/demo", _StaticPages(directory=_DEMO))]


def _page(path: Path) -> Callable[[Request], Awaitable[Response]]:
    """One page, read at start-up. A coroutine function, because Starlette runs other functions in threads."""
    text = path.read_text(encoding="utf-8")

    async def respond(request: Request) -> Response:
        return HTMLResponse(text, headers=_PAGE_HEADERS)

    return respond


def _script(path: Path) -> Callable[[Request], Awaitable[Response]]:
    """One JavaScript module, read at start-up. Browsers ask for it each time, and get 304 if it has not changed."""
    text = path.read_bytes()
    headers = {**_SCRIPT_HEADERS, "ETag": f'"{hashlib.sha256(text).hexdigest()[:32]}"'}

    async def respond(request: Request) -> Response:
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(text, headers=headers, media_type="text/javascript")

    return respond


class _StaticPages(StaticFiles):
    """Static files with the security headers of the pages."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A missing file is a 404 response. Without this method it would be reported as an internal error."""
        try:
            return await super().get_response(path, scope)
        except HTTPException as refused:
            return PlainTextResponse(f"{refused.detail}\n", refused.status_code, refused.headers)

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]  # the arguments are not changed
        response.headers.update(_PAGE_HEADERS)
        return response
