"""The suite of all transports under uvicorn, mounted below a prefix in a Starlette application."""

from __future__ import annotations

from tests.conformance.transports.test_polling import *  # noqa: F403
from tests.conformance.transports.test_requests import *  # noqa: F403
from tests.conformance.transports.test_scenario import *  # noqa: F403
from tests.conformance.transports.test_unidirectional import *  # noqa: F403

HOST = "mounted"
TRANSPORTS = ("websocket-json", "http_stream-json", "poll-json")
