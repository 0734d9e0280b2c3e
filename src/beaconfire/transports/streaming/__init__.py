"""HTTP requests as transports, over any ASGI server: responses that last as long as the session, and long polling."""

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
from beaconfire.transports.streaming.polling import Poll, Speaking
from beaconfire.transports.streaming.stream import Farewell
from beaconfire.transports.streaming.wire import events, lines, varint_delimited

__all__ = [
    "CONNECT_PARAMETER",
    "HTTP_STREAM",
    "SSE",
    "UNI_HTTP_STREAM",
    "UNI_SSE",
    "Emulation",
    "Farewell",
    "Gate",
    "Poll",
    "Speakers",
    "Speaking",
    "StreamEndpoint",
    "Style",
    "events",
    "lines",
    "varint_delimited",
]
