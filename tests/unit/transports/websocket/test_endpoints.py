"""Selection of codec, compression and subprotocol by the WebSocket endpoints."""

from __future__ import annotations

import pytest

from beaconfire.model.handshake import Handshake
from beaconfire.protocols.port import Wire
from beaconfire.transports.options import WebSocketOptions
from beaconfire.transports.port import OpenSession, Transport
from beaconfire.transports.websocket.deflate import CompressedWire
from beaconfire.transports.websocket.handshake import UpgradeRequest
from beaconfire.transports.websocket.wire_selector import WireSelector
from beaconfire.transports.websocket_endpoints import CentrifugeEndpoint
from beaconfire.transports.websocket_request import WebSocketRequest

from .support import RecordingReceiver
from .test_framing import StubCodec

JSON_WIRES = WireSelector(StubCodec(b"\n"), WebSocketOptions())
PROTOBUF_WIRES = WireSelector(StubCodec(b""), WebSocketOptions())
ACCEPTED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
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
def test_encoding_is_selected_by_subprotocol_or_query(
    query: str, offered: str | None, wire: Wire, pings: bool, echoed: str
) -> None:
    """A known subprotocol has precedence and is echoed. Without one the query decides; JSON is the default."""
    headers = {} if offered is None else {"sec-websocket-protocol": offered}
    request = UpgradeRequest("GET", f"/connection/websocket?{query}", headers)
    selected: list[tuple[Wire, bool]] = []

    def session_factory(request: WebSocketRequest, wire: Wire, transport_pings: bool) -> OpenSession:
        selected.append((wire, transport_pings))
        return open_session

    negotiated = CentrifugeEndpoint(JSON_WIRES, PROTOBUF_WIRES, session_factory).negotiate(request)
    assert negotiated.subprotocol == echoed
    assert negotiated.open_session is open_session
    assert selected == [(wire, pings)]


def test_accepted_compression_is_in_the_response() -> None:
    """All connections that offer compression share the compressed wire of their codec."""
    on = WebSocketOptions(compression=True)
    endpoint = CentrifugeEndpoint(
        WireSelector(StubCodec(b"\n"), on), WireSelector(StubCodec(b""), on), lambda *how: _note(how[1])
    )
    selected: list[Wire] = []

    def _note(wire: Wire) -> OpenSession:
        selected.append(wire)
        return open_session

    for offered in ("permessage-deflate", "permessage-deflate; client_max_window_bits", "permessage-unknown", ""):
        negotiated = endpoint.negotiate(UpgradeRequest("GET", "/", {"sec-websocket-extensions": offered}))
        assert negotiated.extension == (ACCEPTED if "deflate" in offered else "")
    assert selected[0] is selected[1]
    assert isinstance(selected[0], CompressedWire)
    assert not isinstance(selected[2], CompressedWire)
    assert selected[2] is selected[3]


def test_connections_share_one_wire_for_each_window() -> None:
    """So that fan-out compresses once for each window. The largest window is 12."""
    wires = WireSelector(StubCodec(None), WebSocketOptions(compression=True))

    def wire(offer: str) -> Wire:
        return wires.select(UpgradeRequest("GET", "/", {"sec-websocket-extensions": offer}))[0]

    default = wire("permessage-deflate")
    windows = {bits: wire(f"permessage-deflate; server_max_window_bits={bits}") for bits in range(8, 16)}
    assert all(windows[bits] is default for bits in range(12, 16))
    assert len({id(windows[bits]) for bits in range(8, 13)}) == 5
    assert not isinstance(windows[8], CompressedWire)
    assert all(wire(f"permessage-deflate; server_max_window_bits={bits}") is windows[bits] for bits in range(8, 16))


def open_session(transport: Transport, handshake: Handshake) -> RecordingReceiver:
    return RecordingReceiver(transport)
