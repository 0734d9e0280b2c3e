"""HTTP streaming and Server-Sent Events over any ASGI server: the response lasts as long as its session."""

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
from beaconfire.transports.streams.wires import StreamWire, events, lines, varint_delimited

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
    "StreamWire",
    "events",
    "lines",
    "varint_delimited",
]
