"""Selects the wire of a WebSocket connection: plain frames, or compressed ones if the client offers compression."""

from __future__ import annotations

from beaconfire.protocols.port import Codec, Wire
from beaconfire.transports.options import WebSocketOptions
from beaconfire.transports.websocket.deflate import CompressedWire
from beaconfire.transports.websocket.extensions import negotiate
from beaconfire.transports.websocket.framing import WebSocketWire
from beaconfire.transports.websocket_request import WebSocketRequest


class WireSelector:
    """The wires of one codec: one without compression, and, if compression is on, one for each negotiated window."""

    __slots__ = ("_codec", "_compressed", "_options", "_plain")

    def __init__(self, codec: Codec, options: WebSocketOptions) -> None:
        self._codec = codec
        self._options = options
        self._plain = WebSocketWire(codec)
        self._compressed: dict[int, CompressedWire] = {}

    def select(self, request: WebSocketRequest) -> tuple[Wire, str]:
        """The wire for a request, and the value of the Sec-WebSocket-Extensions response header (empty for none)."""
        if self._options.compression and (negotiated := negotiate(request.extensions)) is not None:
            return self._compressed_wire(negotiated.window_bits), negotiated.response_header
        return self._plain, ""

    def _compressed_wire(self, window_bits: int) -> CompressedWire:
        """The same wire for the same window, because fan-out compresses once for each wire."""
        wire = self._compressed.get(window_bits)
        if wire is None:
            options = self._options
            wire = CompressedWire(
                self._codec, int(options.compression_min_size), options.compression_level, window_bits
            )
            self._compressed[window_bits] = wire
        return wire
