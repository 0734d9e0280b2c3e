"""The wires of one codec on WebSocket: frames as they are, and compressed ones for who agrees to them."""

from __future__ import annotations

from beaconfire.protocols.port import Codec, Wire
from beaconfire.transports.options import WebSocketOptions
from beaconfire.transports.websocket.deflate import CompressedWire
from beaconfire.transports.websocket.extensions import negotiate
from beaconfire.transports.websocket.framing import WebSocketWire
from beaconfire.transports.websocket.handshake import UpgradeRequest


class WireSelector:
    """One wire for all connections of the codec, and where compression is on one more for each window agreed on."""

    __slots__ = ("_codec", "_compressed", "_options", "_plain")

    def __init__(self, codec: Codec, options: WebSocketOptions) -> None:
        self._codec = codec
        self._options = options
        self._plain = WebSocketWire(codec)
        self._compressed: dict[int, CompressedWire] = {}

    def select(self, request: UpgradeRequest) -> tuple[Wire, str]:
        """The wire for a request, and what answers the extensions it offers (empty: none is taken up)."""
        if self._options.compression and (agreement := negotiate(request.extensions)) is not None:
            return self._compress(agreement.window_bits), agreement.answer
        return self._plain, ""

    def _compress(self, window_bits: int) -> CompressedWire:
        """Always the same for the same window, since what is sent to many is compressed once for each wire."""
        wire = self._compressed.get(window_bits)
        if wire is None:
            options = self._options
            wire = CompressedWire(
                self._codec, int(options.compression_min_size), options.compression_level, window_bits
            )
            self._compressed[window_bits] = wire
        return wire
