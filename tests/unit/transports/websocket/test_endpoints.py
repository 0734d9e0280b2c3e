"""Which encoding a client of the native protocol gets."""

from __future__ import annotations

import pytest

from beaconfire.protocols.port import Wire
from beaconfire.transports.options import WebSocketOptions
from beaconfire.transports.port import OpenSession, Transport
from beaconfire.transports.websocket.deflate import CompressedWire
from beaconfire.transports.websocket.endpoints import CentrifugeEndpoint
from beaconfire.transports.websocket.handshake import UpgradeRequest
from beaconfire.transports.websocket.wire_selector import WireSelector

from .support import RecordingReceiver
from .test_framing import StubCodec

JSON_WIRES = WireSelector(StubCodec(b"\n"), WebSocketOptions())
PROTOBUF_WIRES = WireSelector(StubCodec(b""), WebSocketOptions())
AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
ANY = UpgradeRequest("GET", "/", {})
JSON, PROTOBUF = JSON_WIRES.select(ANY)[0], PROTOBUF_WIRES.select(ANY)[0]


@pytest.mark.parametrize(
    ("query", "offered", "wire", "pings", "echoed"),
    [
        ("", None, JSON, False, ""),
        ("", "", JSON, False, ""),
        ("", "centrifuge-json", JSON, False, "centrifuge-json"),
        ("", "centrifuge-protobuf", PROTOBUF, False, "centrifuge-protobuf"),
        ("", "other, centrifuge-protobuf, centrifuge-json", PROTOBUF, False, "centrifuge-protobuf"),
        ("", "other", JSON, False, ""),
        ("format=protobuf", None, PROTOBUF, False, ""),
        ("cf_protocol=protobuf&cf_protocol_version=v2", None, PROTOBUF, False, ""),
        ("format=json", None, JSON, False, ""),
        ("format=protobuf", "centrifuge-json", JSON, False, "centrifuge-json"),
        ("cf_ws_frame_ping_pong=true", None, JSON, True, ""),
        ("cf_ws_frame_ping_pong=false", None, JSON, False, ""),
    ],
)
def test_choice(query: str, offered: str | None, wire: Wire, pings: bool, echoed: str) -> None:
    """A known subprotocol decides and is echoed; else the query decides; JSON is the default."""
    headers = {} if offered is None else {"sec-websocket-protocol": offered}
    request = UpgradeRequest("GET", f"/connection/websocket?{query}", headers)
    arranged: list[tuple[Wire, bool]] = []

    def arrange(request: UpgradeRequest, wire: Wire, transport_pings: bool) -> OpenSession:
        arranged.append((wire, transport_pings))
        return open_session

    choice = CentrifugeEndpoint(JSON_WIRES, PROTOBUF_WIRES, arrange).negotiate(request)
    assert choice.subprotocol == echoed
    assert choice.open_session is open_session
    assert arranged == [(wire, pings)]


def test_compression_is_echoed_where_it_is_on() -> None:
    """A connection that offers it is on the compressed wire of its codec, the same for all, and is told so."""
    on = WebSocketOptions(compression=True)
    endpoint = CentrifugeEndpoint(
        WireSelector(StubCodec(b"\n"), on), WireSelector(StubCodec(b""), on), lambda *how: _note(how[1])
    )
    arranged: list[Wire] = []

    def _note(wire: Wire) -> OpenSession:
        arranged.append(wire)
        return open_session

    for offered in ("permessage-deflate", "permessage-deflate; client_max_window_bits", "permessage-unknown", ""):
        choice = endpoint.negotiate(UpgradeRequest("GET", "/", {"sec-websocket-extensions": offered}))
        assert choice.extension == (AGREED if "deflate" in offered else "")
    assert arranged[0] is arranged[1]
    assert isinstance(arranged[0], CompressedWire)
    assert not isinstance(arranged[2], CompressedWire)
    assert arranged[2] is arranged[3]


def test_one_compressed_wire_for_each_window() -> None:
    """Whoever agreed on the same window shares one, so that fan-out compresses once for each; 12 is the usual one."""
    wires = WireSelector(StubCodec(None), WebSocketOptions(compression=True))

    def wire(offer: str) -> Wire:
        return wires.select(UpgradeRequest("GET", "/", {"sec-websocket-extensions": offer}))[0]

    usual = wire("permessage-deflate")
    windows = {bits: wire(f"permessage-deflate; server_max_window_bits={bits}") for bits in range(8, 16)}
    assert all(windows[bits] is usual for bits in range(12, 16))
    assert len({id(windows[bits]) for bits in range(8, 13)}) == 5
    assert not isinstance(windows[8], CompressedWire)
    assert all(wire(f"permessage-deflate; server_max_window_bits={bits}") is windows[bits] for bits in range(8, 16))


def open_session(transport: Transport) -> RecordingReceiver:
    return RecordingReceiver(transport)
