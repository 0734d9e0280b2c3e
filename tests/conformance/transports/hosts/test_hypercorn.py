"""The suite of all transports under hypercorn."""

from __future__ import annotations

from tests.conformance.transports.test_polling import *  # noqa: F403
from tests.conformance.transports.test_requests import *  # noqa: F403
from tests.conformance.transports.test_scenario import *  # noqa: F403
from tests.conformance.transports.test_unidirectional import *  # noqa: F403

HOST = "hypercorn"
TRANSPORTS = ("websocket-json", "websocket-protobuf", "http_stream-json", "poll-json")
