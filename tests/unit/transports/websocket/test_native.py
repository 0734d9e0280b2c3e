"""Which encoding a client of the native protocol gets."""

from __future__ import annotations

import pytest

from beaconfire.protocols.base import Wire
from beaconfire.transports.base import Arrival, Transport
from beaconfire.transports.websocket.framing import WebSocketWire
from beaconfire.transports.websocket.handshake import UpgradeRequest
from beaconfire.transports.websocket.native import NativeEndpoint

from .support import Recorder
from .test_framing import StubCodec

JSON = WebSocketWire(StubCodec(b"\n"))
PROTOBUF = WebSocketWire(StubCodec(b""))


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

    def arrange(request: UpgradeRequest, wire: Wire, transport_pings: bool) -> Arrival:
        arranged.append((wire, transport_pings))
        return arrive

    choice = NativeEndpoint(JSON, PROTOBUF, arrange).choose(request)
    assert choice.subprotocol == echoed
    assert choice.arrival is arrive
    assert arranged == [(wire, pings)]


def arrive(transport: Transport) -> Recorder:
    return Recorder(transport)
