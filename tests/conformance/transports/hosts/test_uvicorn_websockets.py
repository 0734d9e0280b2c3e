"""The suite of WebSocket transports under uvicorn with its older WebSocket implementation (`--ws websockets`)."""

from __future__ import annotations

from tests.conformance.transports.test_scenario import *  # noqa: F403
from tests.conformance.transports.test_unidirectional import *  # noqa: F403

HOST = "uvicorn-websockets"
TRANSPORTS = ("websocket-json", "websocket-protobuf")
