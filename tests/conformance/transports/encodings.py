"""The two encodings of the Centrifuge protocol. Commands and messages are dicts, as in JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any, Protocol

from google.protobuf.json_format import MessageToDict, ParseDict

from beaconfire.protocols.centrifuge import schema_pb2 as wire

Message = dict[str, Any]

_PAYLOADS = ("data", "conn_info", "chan_info")
_NUMBERS = ("offset", "time")


class SessionEndedError(Exception):
    """The server has ended the session with this code; 1006 if it sent no code."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class Encoding(Protocol):
    """One encoding."""

    subprotocol: str
    content_type: str

    def encode(self, commands: Sequence[Message]) -> bytes: ...

    def decode(self, buffer: bytearray) -> list[Message]:
        """Removes the complete messages from the start of a buffer and returns them."""


class JsonEncoding:
    subprotocol = "centrifuge-json"
    content_type = "application/json"

    def encode(self, commands: Sequence[Message]) -> bytes:
        return b"\n".join(json.dumps(command).encode() for command in commands)

    def decode(self, buffer: bytearray) -> list[Message]:
        *lines, rest = bytes(buffer).split(b"\n")
        buffer[:] = rest
        return [json.loads(line) for line in lines if line]


class ProtobufEncoding:
    subprotocol = "centrifuge-protobuf"
    content_type = "application/octet-stream"

    def encode(self, commands: Sequence[Message]) -> bytes:
        messages = [
            ParseDict(_convert(command, into=_pack), wire.Command()).SerializeToString() for command in commands
        ]
        return b"".join(_varint(len(message)) + message for message in messages)

    def decode(self, buffer: bytearray) -> list[Message]:
        found = []
        while (message := _remove_first(buffer)) is not None:
            reply = MessageToDict(wire.Reply.FromString(message), preserving_proto_field_name=True)
            found.append(_convert(reply, into=_unpack))
        return found


def _remove_first(buffer: bytearray) -> bytes | None:
    """Removes the first message from the buffer and returns it, if it is complete."""
    length = 0
    for index, byte in enumerate(buffer[:5]):
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            end = index + 1 + length
            if len(buffer) < end:
                return None
            message = bytes(buffer[index + 1 : end])
            del buffer[:end]
            return message
    return None


def _varint(number: int) -> bytes:
    groups = []
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def _pack(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def _unpack(value: Any) -> Any:
    return json.loads(base64.b64decode(value))


def _convert(message: Any, into: Any) -> Any:
    """Converts the payloads of a message, which are bytes in Protobuf, and 64-bit numbers, which are strings."""
    if isinstance(message, list):
        return [_convert(item, into) for item in message]
    if not isinstance(message, dict):
        return message
    return {
        name: into(value) if name in _PAYLOADS else int(value) if name in _NUMBERS else _convert(value, into)
        for name, value in message.items()
    }
