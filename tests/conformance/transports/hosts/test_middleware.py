"""The suite of all transports under uvicorn, behind a `BaseHTTPMiddleware` of Starlette."""

from __future__ import annotations

from tests.conformance.transports.test_polling import *  # noqa: F403
from tests.conformance.transports.test_requests import *  # noqa: F403
from tests.conformance.transports.test_scenario import *  # noqa: F403
from tests.conformance.transports.test_unidirectional import *  # noqa: F403

HOST = "middleware"
TRANSPORTS = ("websocket-json", "http_stream-json", "poll-json")
