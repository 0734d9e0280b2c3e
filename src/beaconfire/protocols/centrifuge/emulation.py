"""Emulation requests: commands of a client whose connection only receives (protocol reference, section 16)."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
from google.protobuf.message import DecodeError
from msgspec import Struct

from beaconfire.protocols.centrifuge import schema_pb2
from beaconfire.protocols.port import ProtocolError


class EmulationRequest(NamedTuple):
    """`session` is the secret of the session, `node` the id of its node or empty.

    `data` holds commands, in the format of a WebSocket message.
    """

    session: str
    data: bytes
    node: str


class _JsonRequest(Struct):
    session: str
    data: str
    node: str | None = None


_decode_json: Final = msgspec.json.Decoder(_JsonRequest).decode


def decode_emulation_request(body: bytes, binary: bool) -> EmulationRequest:
    """Decodes Protobuf if `binary`, else JSON. Raises ProtocolError."""
    try:
        if binary:
            message = schema_pb2.EmulationRequest.FromString(body)
            return EmulationRequest(message.session, message.data, message.node)
        request = _decode_json(body)
        return EmulationRequest(request.session, request.data.encode(), request.node or "")
    except (msgspec.DecodeError, DecodeError, UnicodeEncodeError) as error:
        expected = "an EmulationRequest" if binary else '{"session": …, "node": …, "data": …}'
        raise ProtocolError(f"expected {expected}: {error}") from None
