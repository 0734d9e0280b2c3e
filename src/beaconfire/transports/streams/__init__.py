"""HTTP responses that last as long as their sessions, over any ASGI server: HTTP streaming and Server-Sent Events."""

from beaconfire.transports.streams.emulation import Emulation, Speakers
from beaconfire.transports.streams.endpoint import (
    CONNECT_PARAMETER,
    HTTP_STREAM,
    SSE,
    UNI_HTTP_STREAM,
    UNI_SSE,
    StreamEndpoint,
    Style,
)
from beaconfire.transports.streams.stream import Farewell
from beaconfire.transports.streams.wires import events, lines, varint_delimited

__all__ = [
    "CONNECT_PARAMETER",
    "HTTP_STREAM",
    "SSE",
    "UNI_HTTP_STREAM",
    "UNI_SSE",
    "Emulation",
    "Farewell",
    "Speakers",
    "StreamEndpoint",
    "Style",
    "events",
    "lines",
    "varint_delimited",
]
