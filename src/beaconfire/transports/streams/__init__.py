"""HTTP responses that last as long as their sessions, over any ASGI server: HTTP streaming and Server-Sent Events."""

from beaconfire.transports.streams.emulation import EmulatedSessions, Emulation
from beaconfire.transports.streams.endpoint import (
    CONNECT_PARAMETER,
    HTTP_STREAM,
    SSE,
    UNI_HTTP_STREAM,
    UNI_SSE,
    StreamEndpoint,
    StreamKind,
)
from beaconfire.transports.streams.response_stream import StreamCloseTimeout
from beaconfire.transports.streams.wires import events, lines, varint_delimited

__all__ = [
    "CONNECT_PARAMETER",
    "HTTP_STREAM",
    "SSE",
    "UNI_HTTP_STREAM",
    "UNI_SSE",
    "EmulatedSessions",
    "Emulation",
    "StreamCloseTimeout",
    "StreamEndpoint",
    "StreamKind",
    "events",
    "lines",
    "varint_delimited",
]
