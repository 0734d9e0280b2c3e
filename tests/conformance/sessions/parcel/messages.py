"""The messages of clients, and their way through messages of the transport."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Raw, Struct

from beaconfire.protocols.port import ProtocolError

MESSAGE_BYTES_MAX: Final = 65_536
_LENGTH_BYTES: Final = 4


class Hello(Struct, tag="hello", tag_field="type"):
    """The first message on a transport.

    `id` and `secret` are the client's own. With those of a living session, the transport replaces that of the session.
    `acked` is the number of the last message that the client has received.
    """

    id: str
    secret: str
    token: str = ""
    acked: int = 0
    channels: list[str] = []


class Emit(Struct, tag="emit", tag_field="type"):
    """An event of the client. Numbers rise by one. The server acknowledges each event, with a result or an error."""

    n: int
    event: str
    args: Raw


class Ack(Struct, tag="ack", tag_field="type"):
    """The client has received every message up to number `n`."""

    n: int


class Ping(Struct, tag="ping", tag_field="type"):
    """The server answers with a pong."""


ClientMessage: TypeAlias = Hello | Emit | Ack | Ping


class Command(NamedTuple):
    """`hello` has the number 0."""

    n: int
    event: str
    args: Any


_decode: Final = msgspec.msgpack.Decoder(ClientMessage).decode
encode: Final = msgspec.msgpack.Encoder().encode


def framed(message: bytes) -> bytes:
    """The message after its length."""
    return len(message).to_bytes(_LENGTH_BYTES, "big") + message


class MessageBuffer:
    """Takes messages apart. Keeps at most `MESSAGE_BYTES_MAX` of a message that is not complete yet."""

    __slots__ = ("_partial",)

    def __init__(self) -> None:
        self._partial = b""

    def split(self, data: bytes) -> list[bytes]:
        """The messages that are complete now, without their lengths. Raises ProtocolError."""
        data = self._partial + data
        messages, start = [], 0
        while len(data) - start >= _LENGTH_BYTES:
            end = start + _LENGTH_BYTES + int.from_bytes(data[start : start + _LENGTH_BYTES], "big")
            if end - start > MESSAGE_BYTES_MAX:
                raise ProtocolError("a message is longer than MESSAGE_BYTES_MAX")
            if end > len(data):
                break
            messages.append(data[start + _LENGTH_BYTES : end])
            start = end
        self._partial = data[start:]
        return messages

    def decode(self, data: bytes) -> list[ClientMessage]:
        """The messages of a client that are complete now. Raises ProtocolError."""
        try:
            return [_decode(message) for message in self.split(data)]
        except (msgspec.DecodeError, RecursionError) as error:
            raise ProtocolError(f"not a message: {error}") from None


def decode_args(kind: Any, args: Raw) -> Any:
    """Raises ProtocolError."""
    try:
        return msgspec.msgpack.decode(args, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ProtocolError(str(error)) from None
