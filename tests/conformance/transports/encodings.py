"""What is said on any line, in both encodings of the native protocol: commands and messages are the dicts of JSON."""

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


class EndedError(Exception):
    """The server has ended the session with this code; 1006 if it did not say."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class Speech(Protocol):
    """One encoding. A decoder is fed with whatever pieces come and gives the messages that are complete."""

    subprotocol: str
    content_type: str

    def encode(self, commands: Sequence[Message]) -> bytes: ...

    def take(self, buffer: bytearray) -> list[Message]:
        """Removes complete messages from the front of a buffer."""


class JsonSpeech:
    subprotocol = "centrifuge-json"
    content_type = "application/json"

    def encode(self, commands: Sequence[Message]) -> bytes:
        return b"\n".join(json.dumps(command).encode() for command in commands)

    def take(self, buffer: bytearray) -> list[Message]:
        *whole, rest = bytes(buffer).split(b"\n")
        buffer[:] = rest
        return [json.loads(line) for line in whole if line]


class ProtobufSpeech:
    subprotocol = "centrifuge-protobuf"
    content_type = "application/octet-stream"

    def encode(self, commands: Sequence[Message]) -> bytes:
        messages = [
            ParseDict(_payloads(command, into=_packed), wire.Command()).SerializeToString() for command in commands
        ]
        return b"".join(_varint(len(message)) + message for message in messages)

    def take(self, buffer: bytearray) -> list[Message]:
        found = []
        while (whole := _first(buffer)) is not None:
            reply = MessageToDict(wire.Reply.FromString(whole), preserving_proto_field_name=True)
            found.append(_payloads(reply, into=_unpacked))
        return found


def _first(buffer: bytearray) -> bytes | None:
    """Removes the first message, if it is complete."""
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


def _packed(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def _unpacked(value: Any) -> Any:
    return json.loads(base64.b64decode(value))


def _payloads(message: Any, into: Any) -> Any:
    """The message with its payloads, which Protobuf has as bytes, packed or unpacked, and numbers as numbers."""
    if isinstance(message, list):
        return [_payloads(item, into) for item in message]
    if not isinstance(message, dict):
        return message
    return {
        name: into(value) if name in _PAYLOADS else int(value) if name in _NUMBERS else _payloads(value, into)
        for name, value in message.items()
    }
