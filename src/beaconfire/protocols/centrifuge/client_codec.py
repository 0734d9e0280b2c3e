"""The client side of the Centrifuge protocol: the port of its codecs, and the message types that only clients need.

A client encodes requests and decodes replies and pushes; the server's codecs do the reverse. Requests, results and
pushes are the structs of `beaconfire.model`, the field names are those of `fields`, so both sides share one schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, get_origin

import msgspec
from msgspec import Raw, Struct

from beaconfire.model.publication import NO_PAYLOAD, ClientInfo
from beaconfire.model.pushes import Push
from beaconfire.protocols.centrifuge.requests import Request
from beaconfire.protocols.centrifuge.results import Result


class ReplyError(Struct, frozen=True):
    """A command failed. `temporary` means that the client may send the command again later."""

    code: int = 0
    message: str = ""
    temporary: bool = False


class Reply(NamedTuple):
    """The reply to the command with this id."""

    id: int
    result: Result | ReplyError


class Ping(Struct, frozen=True):
    """The server's ping: an empty message. The client answers with a pong if `ConnectResult.pong` is true."""


PING: Final = Ping()

ServerMessage: TypeAlias = Reply | Push | Ping | None
"""None stands for a push of a kind that this version does not know. Clients ignore it."""


class ClientCodec(Protocol):
    """One encoding, seen from the client. Stateless."""

    @property
    def name(self) -> str:
        """The WebSocket subprotocol."""

    @property
    def binary(self) -> bool:
        """Whether WebSocket frames are binary."""

    @property
    def separator(self) -> bytes:
        """Stands between commands that share a frame."""

    @property
    def pong(self) -> bytes:
        """The encoded answer to a ping."""

    def encode(self, number: int, request: Request) -> bytes:
        """A command, ready to be sent as a frame. `number` is its id: above 0, or 0 for a `SendRequest`.

        The caller guarantees that payloads are valid in this encoding (JSON text for JSON). Raises PayloadError for
        text that is not Unicode.
        """

    def split(self, frame: bytes) -> Sequence[bytes]:
        """The messages of a frame, in order, without separators and lengths. Raises ProtocolError."""

    def decode(self, message: bytes) -> ServerMessage:
        """One of the messages from `split`. Unknown fields are skipped.

        Raises ProtocolError for bytes that are not a message of this protocol, and for a reply without a known result.
        """


def zero(kind: Any) -> object:
    """The value of a field that is not in the encoded message, for a field that has no default in `beaconfire.model`.

    Servers leave out zero values (section 2 of the protocol).
    """
    if kind is Raw:
        return NO_PAYLOAD
    if kind is ClientInfo:
        return ClientInfo("", "")
    return (get_origin(kind) or kind)()


@cache
def required_fields(message: type[Struct]) -> dict[str, Any]:
    """Name and type of the fields without a default. Do not change the result: all callers share it."""
    return {field.name: field.type for field in msgspec.structs.fields(message) if field.required}
