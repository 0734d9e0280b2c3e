"""Applications in which the tests host Beaconfire. Each function is the factory that an ASGI server gets."""

from __future__ import annotations

import logging
import sys

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import ASGIApp

from beaconfire.asgi import create_app

PREFIX = "/realtime"


def plain() -> ASGIApp:
    _log_to_standard_error()
    return create_app()


def mounted() -> ASGIApp:
    """Below a prefix in Starlette, whose lifespan starts and stops Beaconfire."""
    _log_to_standard_error()
    realtime = create_app()
    return Starlette(routes=[Mount(PREFIX, realtime)], lifespan=realtime.lifespan)


def behind_middleware() -> ASGIApp:
    """Behind a middleware that passes every response on through a queue, and mounted at the root."""
    _log_to_standard_error()
    realtime = create_app()
    middleware = [Middleware(BaseHTTPMiddleware, dispatch=_pass_on)]
    return Starlette(routes=[Mount("/", realtime)], middleware=middleware, lifespan=realtime.lifespan)


async def _pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


def _log_to_standard_error() -> None:
    """The tests read the lines of Beaconfire's own log, which are JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("beaconfire")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
