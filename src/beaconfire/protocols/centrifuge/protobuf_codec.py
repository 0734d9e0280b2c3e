"""The Centrifuge protocol in Protobuf (sections 2.1 and 3): each message follows its length as a varint, and payloads
are opaque bytes. A message of length 0 is a ping or a pong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Concatenate, Final, ParamSpec

from google.protobuf.message import DecodeError
from msgspec import Raw

from beaconfire.base.errors import CommandError, PayloadError
from beaconfire.model.pushes import Push
from beaconfire.protocols.centrifuge import schema_pb2 as wire
from beaconfire.protocols.centrifuge.fields import PONG_COMMAND, REQUESTS, raise_unknown_request
from beaconfire.protocols.centrifuge.protobuf_messages import (
    read_request,
    write_error,
    write_push,
    write_result,
)
from beaconfire.protocols.centrifuge.requests import Command
from beaconfire.protocols.centrifuge.results import Result
from beaconfire.protocols.port import Payload, ProtocolError

P = ParamSpec("P")

_LENGTH_BYTES_MAX: Final = 5
"""The size of the varint of a 32-bit length."""

_PING: Final = Payload(b"\x00", binary=True)


class ProtobufCodec:
    """The codec `centrifuge-protobuf`. `ref` is the id of the command, an int above 0."""

    name: Final = "centrifuge-protobuf"
    separator: Final = b""

    def decode(self, data: bytes, binary: bool) -> Sequence[Command]:
        """See `Codec.decode`. Accepts text and binary frames. Payloads are copies. Unknown fields are ignored.

        Raises ProtocolError for an empty frame, a length that is malformed or points beyond the frame, bytes that are
        not a Command, and for a command with an id but without a known request.
        """
        commands = []
        position, end = 0, len(data)
        while position < end:
            length, position = read_varint(data, position)
            if length > end - position:
                raise ProtocolError(f"the frame has {end - position} bytes left for a message of {length} bytes")
            commands.append(_command(data[position : position + length]))
            position += length
        if not commands:
            raise ProtocolError("an empty frame")
        return commands

    def encode_reply(self, ref: object, result: Result) -> Payload:
        """Raises PayloadError only for a string that is not valid Unicode. Payloads can be any bytes."""
        return _encode(ref, write_result, result)

    def encode_error(self, ref: object, error: CommandError, detail: str) -> Payload:
        """`detail` is appended to the message after a colon, because the protocol has no field for it."""
        return _encode(ref, write_error, error, detail)

    def encode_push(self, push: Push) -> Payload:
        """Raises PayloadError only for a string that is not valid Unicode."""
        return _encode(0, write_push, push)

    def encode_ping(self) -> Payload:
        return _PING

    def delta_text(self, data: Raw) -> Raw:
        """The unchanged bytes."""
        return data

    def delta_data(self, text: bytes) -> Raw:
        """The unchanged bytes. Never None."""
        return Raw(text)


def _encode(
    ref: object, write: Callable[Concatenate[wire.Reply, P], None], *args: P.args, **kwargs: P.kwargs
) -> Payload:
    assert isinstance(ref, int)
    reply = wire.Reply()
    reply.id = ref
    try:
        write(reply, *args, **kwargs)
    except UnicodeEncodeError as error:
        raise PayloadError(f"a text is not Unicode: {error.reason}") from None
    message = reply.SerializeToString()
    return Payload(write_varint(len(message)) + message, binary=True)


def _command(message: bytes) -> Command:
    if not message:
        return PONG_COMMAND
    try:
        command = wire.Command.FromString(message)
    except DecodeError as error:
        raise ProtocolError(f"not a Protobuf command: {error}") from None
    ref = command.id
    if ref == 0:
        # Only `send` needs no id. Any other command without an id is a pong, whatever it contains (section 5, rule 2).
        return Command(None, read_request(command.send)) if command.HasField("send") else PONG_COMMAND
    # In the order of field numbers, which is that of REQUESTS. Looking for each request by name takes twice as long.
    for field, request in command.ListFields():
        if field.name in REQUESTS:
            return Command(None if field.name == "send" else ref, read_request(request))
    raise_unknown_request(ref)


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns the varint at `position` and the position after it. `position` must be within the data."""
    byte = data[position]
    if byte < 0x80:
        return byte, position + 1
    number = 0
    for index, byte in enumerate(data[position : position + _LENGTH_BYTES_MAX]):
        number |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return number, position + index + 1
    raise ProtocolError("the length of a message is cut off or longer than 5 bytes")


def write_varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    groups = []
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
