"""Requests that carry the commands of an emulated session."""

from __future__ import annotations

import pytest

from beaconfire.protocols.centrifuge import schema_pb2
from beaconfire.protocols.centrifuge.emulation import decode_emulation_request
from beaconfire.protocols.port import ProtocolError


@pytest.mark.parametrize("node", ["", "node-1"])
def test_both_encodings_give_the_same_request(node: str) -> None:
    """JSON has the commands as text, Protobuf as bytes."""
    binary = schema_pb2.EmulationRequest(session="s", data=b'{"id":1}', node=node).SerializeToString()
    text = b'{"session":"s","data":"{\\"id\\":1}","node":"%s"}' % node.encode()
    for request in (decode_emulation_request(binary, True), decode_emulation_request(text, False)):
        assert (request.session, request.data, request.node) == ("s", b'{"id":1}', node)


@pytest.mark.parametrize(("body", "binary"), [(b"\xff", True), (b'{"session":1}', False), (b"[", False)])
def test_malformed_request_is_a_protocol_error(body: bytes, binary: bool) -> None:
    """The message names the expected form."""
    with pytest.raises(ProtocolError, match="expected"):
        decode_emulation_request(body, binary)
