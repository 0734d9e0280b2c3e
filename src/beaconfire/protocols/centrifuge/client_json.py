"""The client side of the Centrifuge protocol in JSON (sections 2.2 and 3): one object per message, divided by line
breaks, payloads embedded verbatim."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from beaconfire.model.publication import NO_PAYLOAD, Publication
from beaconfire.model.pushes import PublicationPush, Push
from beaconfire.protocols.centrifuge.client_codec import PING, Reply, ReplyError, ServerMessage, required_fields, zero
from beaconfire.protocols.centrifuge.fields import PUSHES, REQUESTS, RESULTS
from beaconfire.protocols.centrifuge.json_codec import encode_message
from beaconfire.protocols.centrifuge.requests import Request
from beaconfire.protocols.json_payload import NotJSONError, decode_json
from beaconfire.protocols.port import ProtocolError

S = TypeVar("S", bound=Struct)

_REQUEST_NAMES: Final = {request: name for name, request in REQUESTS.items()}


class ClientJsonCodec:
    """`ClientCodec` of `centrifuge-json`. Payloads of decoded messages are views: each keeps its frame in memory."""

    name: Final = "centrifuge-json"
    binary: Final = False
    separator: Final = b"\n"
    pong: Final = b"{}"

    def encode(self, number: int, request: Request) -> bytes:
        name = _REQUEST_NAMES[type(request)]
        return encode_message({"id": number, name: request} if number else {name: request}).data

    def split(self, frame: bytes) -> Sequence[bytes]:
        return [line for line in frame.split(b"\n") if line]

    def decode(self, message: bytes) -> ServerMessage:
        try:
            wire = decode_json(_decode, message)
        except NotJSONError as error:
            raise ProtocolError(f"not a JSON reply: {error}") from None
        if wire.push is not None:
            return _read_push(wire.push)
        if not wire.id:
            return PING
        if wire.error is not None:
            return Reply(wire.id, wire.error)
        if wire.publish is not None:  # the most frequent result
            return Reply(wire.id, wire.publish)
        for kind, body in zip(RESULTS, _results_of(wire), strict=True):
            if body is not None:
                return Reply(wire.id, _build(kind, body))
        raise ProtocolError(f"reply {wire.id} holds no known result; expected one of {', '.join(RESULTS.values())}")


# --- structs to decode into ----------------------------------------------------------------------------------------


def _body(message: type[Struct]) -> type[Struct]:
    """The struct that the message is decoded into.

    A field without a default may be missing, or null: servers in Go write an empty list as null. The channel of a push
    is not part of its body.
    """
    if not required_fields(message):
        return message
    if message is PublicationPush:
        return Publication
    fields: list[tuple[str, Any, Any]] = []
    for field in msgspec.structs.fields(message):
        if field.type is Raw:  # null is a value there
            fields.append((field.name, Raw, NO_PAYLOAD))
        elif field.default is msgspec.NODEFAULT:
            fields.append((field.name, field.type | None, None))
        else:
            fields.append((field.name, field.type, field.default))
    if message in PUSHES:
        fields = [field for field in fields if field[0] != "channel"]
    return msgspec.defstruct(f"_{message.__name__}", fields, frozen=True, gc=False)


def _optional(messages: Any) -> list[tuple[str, Any, None]]:
    return [(name, _body(message) | None, None) for message, name in messages.items()]


_Push: Final = msgspec.defstruct("_Push", [("channel", str, ""), *_optional(PUSHES)], frozen=True, gc=False)
_Reply: Final = msgspec.defstruct(
    "_Reply",
    [("id", int, 0), ("error", ReplyError | None, None), ("push", _Push | None, None), *_optional(RESULTS)],
    frozen=True,
    gc=False,
)
_decode: Final[Callable[[bytes], Any]] = msgspec.json.Decoder(_Reply).decode
_results_of: Final = attrgetter(*RESULTS.values())
_pushes_of: Final = attrgetter(*PUSHES.values())


def _read_push(wire: Any) -> Push | None:
    if wire.pub is not None:
        return PublicationPush(wire.channel, wire.pub)
    for kind, body in zip(PUSHES, _pushes_of(wire), strict=True):
        if body is not None:
            push: Push = _build(kind, body, wire.channel)
            return push
    return None


def _build(kind: type[S], body: Any, channel: str = "") -> S:
    """Makes a message from its decoded body."""
    if type(body) is kind:
        return body
    values = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not None}
    if "channel" in kind.__struct_fields__:
        values["channel"] = channel
    for name, field_type in required_fields(kind).items():
        if name not in values:
            values[name] = zero(field_type)
    return kind(**values)
