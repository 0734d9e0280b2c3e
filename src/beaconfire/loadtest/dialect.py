"""The native protocol from a client's side, in both encodings: as little of it as a load test needs.

Payloads are opaque to the protocol, so a mark stands in a frame of either encoding exactly as it was published, and is
found without decoding anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Protocol

import msgspec
from google.protobuf.message import DecodeError
from msgspec import Struct

from beaconfire.protocols.centrifuge import schema_pb2 as wire

MARK: Final = re.compile(rb'\{"t":(\d{1,20}),"n":(\d{1,20}),"x":"')
"""How the data of our messages begins: when it was due, monotonic nanoseconds, and its number."""

_NAME: Final = "beaconfire-bench"


def mark(due_ns: int, message: int, size_bytes: int) -> bytes:
    """The data of a message: JSON of exactly this size, if that is enough."""
    head = b'{"t":%d,"n":%d,"x":"' % (due_ns, message)
    return head + b"x" * (size_bytes - len(head) - 2) + b'"}'


class Told(Struct, frozen=True, gc=False):
    """A number and its words."""

    code: int = 0
    message: str = ""


class Heard(Struct, frozen=True, gc=False):
    """One message from the server. A ping has nothing in it; `pong` says that pings want an answer."""

    id: int = 0
    error: Told | None = None
    pong: bool = False
    unsubscribed: Told | None = None
    is_ping: bool = False


class FormatError(Exception):
    """The server's bytes are no message of this protocol."""


class Dialect(Protocol):
    """One encoding. Stateless."""

    binary: bool
    subprotocol: str
    pong: bytes

    def connect(self, number: int, token: str) -> bytes: ...
    def subscribe(self, number: int, channel: str) -> bytes: ...
    def publish(self, number: int, channel: str, data: bytes) -> bytes: ...

    def split(self, frame: bytes) -> Iterable[bytes]:
        """The messages of a frame. Raises FormatError."""

    def read(self, message: bytes) -> Heard:
        """Raises FormatError."""


# --- JSON ----------------------------------------------------------------------------------------------------------


class _JsonConnected(Struct, gc=False):
    pong: bool = False


class _JsonUnsubscribe(Struct, gc=False):
    code: int = 0
    reason: str = ""


class _JsonPush(Struct, gc=False):
    unsubscribe: _JsonUnsubscribe | None = None


class _JsonReply(Struct, gc=False):
    id: int = 0
    error: Told | None = None
    connect: _JsonConnected | None = None
    push: _JsonPush | None = None


_decode_json: Final = msgspec.json.Decoder(_JsonReply).decode
_text: Final = msgspec.json.encode


class JsonDialect:
    """One object per message, line breaks between them."""

    binary = False
    subprotocol = "centrifuge-json"
    pong = b"{}"

    def connect(self, number: int, token: str) -> bytes:
        return b'{"id":%d,"connect":{"token":%s,"name":"%s"}}' % (number, _text(token), _NAME.encode())

    def subscribe(self, number: int, channel: str) -> bytes:
        return b'{"id":%d,"subscribe":{"channel":%s}}' % (number, _text(channel))

    def publish(self, number: int, channel: str, data: bytes) -> bytes:
        return b'{"id":%d,"publish":{"channel":%s,"data":%s}}' % (number, _text(channel), data)

    def split(self, frame: bytes) -> Iterable[bytes]:
        return [line for line in frame.split(b"\n") if line]

    def read(self, message: bytes) -> Heard:
        if message == b"{}":
            return _PING
        try:
            reply = _decode_json(message)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FormatError(f"not a JSON reply: {error}") from None
        gone = reply.push.unsubscribe if reply.push else None
        return Heard(
            id=reply.id,
            error=reply.error,
            pong=reply.connect is not None and reply.connect.pong,
            unsubscribed=Told(gone.code, gone.reason) if gone else None,
        )


# --- Protobuf ------------------------------------------------------------------------------------------------------


class ProtobufDialect:
    """Every message after its length as a varint."""

    binary = True
    subprotocol = "centrifuge-protobuf"
    pong = b"\x00"

    def connect(self, number: int, token: str) -> bytes:
        return _frame(wire.Command(id=number, connect=wire.ConnectRequest(token=token, name=_NAME)))

    def subscribe(self, number: int, channel: str) -> bytes:
        return _frame(wire.Command(id=number, subscribe=wire.SubscribeRequest(channel=channel)))

    def publish(self, number: int, channel: str, data: bytes) -> bytes:
        return _frame(wire.Command(id=number, publish=wire.PublishRequest(channel=channel, data=data)))

    def split(self, frame: bytes) -> Iterable[bytes]:
        messages = []
        position = 0
        while position < len(frame):
            length = shift = 0
            while True:
                if position >= len(frame) or shift > 28:
                    raise FormatError("the length of a message is cut off")
                byte = frame[position]
                position += 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            messages.append(frame[position : position + length])
            position += length
        return messages

    def read(self, message: bytes) -> Heard:
        if not message:
            return _PING
        try:
            reply = wire.Reply.FromString(message)
        except DecodeError as error:
            raise FormatError(f"not a Protobuf reply: {error}") from None
        gone = reply.push.unsubscribe
        return Heard(
            id=reply.id,
            error=Told(reply.error.code, reply.error.message) if reply.HasField("error") else None,
            pong=reply.connect.pong,
            unsubscribed=Told(gone.code, gone.reason) if reply.push.HasField("unsubscribe") else None,
        )


_PING: Final = Heard(is_ping=True)


def _frame(command: wire.Command) -> bytes:
    message = command.SerializeToString()
    length = len(message)
    head = bytearray()
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + message


def dialect(protobuf: bool) -> Dialect:
    return ProtobufDialect() if protobuf else JsonDialect()
