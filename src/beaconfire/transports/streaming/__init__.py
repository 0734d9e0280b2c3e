"""HTTP responses that go on for as long as the session does: HTTP streaming and Server-Sent Events, over any ASGI."""

from beaconfire.transports.streaming.emulation import Emulation, Speakers
from beaconfire.transports.streaming.endpoint import (
    CONNECT_PARAMETER,
    HTTP_STREAM,
    SSE,
    UNI_HTTP_STREAM,
    UNI_SSE,
    StreamEndpoint,
    Style,
)
from beaconfire.transports.streaming.gate import Gate
from beaconfire.transports.streaming.wire import events, lines, varint_delimited

__all__ = [
    "CONNECT_PARAMETER",
    "HTTP_STREAM",
    "SSE",
    "UNI_HTTP_STREAM",
    "UNI_SSE",
    "Emulation",
    "Gate",
    "Speakers",
    "StreamEndpoint",
    "Style",
    "events",
    "lines",
    "varint_delimited",
]
