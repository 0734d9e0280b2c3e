"""Implementing `protocols.port.Codec`."""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.base.errors import CommandError
from beaconfire.model.pushes import Push
from beaconfire.protocols.centrifuge.requests import Command, RPCRequest
from beaconfire.protocols.centrifuge.results import Result
from beaconfire.protocols.port import Codec, Frame, Payload, ProtocolError, Wire


class LineCodec:
    """A codec of text lines, in which every command is a remote procedure call."""

    name = "lines"
    separator = b"\n"
    app_pings = True

    def decode(self, data: bytes, binary: bool) -> Sequence[Command]:
        if binary:
            raise ProtocolError("lines are text")
        return [Command(1, RPCRequest(method=line.decode())) for line in data.splitlines()]

    def encode_reply(self, ref: object, result: Result) -> Payload:
        return Payload(f"{ref} ok".encode())

    def encode_error(self, ref: object, error: CommandError, detail: str) -> Payload:
        return Payload(f"{ref} error {error.code.code} {detail}".encode())

    def encode_push(self, push: Push) -> Payload:
        return Payload(type(push).__name__.encode())

    def encode_ping(self) -> Payload:
        return Payload(b"", binary=False)


class LineWire:
    codec: Codec = LineCodec()

    def pack(self, payloads: Sequence[Payload]) -> Frame:
        return b"\n".join(payload.data for payload in payloads)


class CodecOfText(LineCodec):
    def encode_ping(self) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return "ping"


codec: Codec = LineCodec()
wire: Wire = LineWire()
codec_without_wire: Wire = LineCodec()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def rename(codec: Codec) -> bytes:
    codec.name = "renamed"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    return codec.encode_ping().data
