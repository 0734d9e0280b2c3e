"""The client side of the Centrifuge protocol in Protobuf (sections 2.1 and 3): each message follows its length as a
varint.

Our structs and the generated messages have the same field names, so one generic reader and one generic writer serve
all of them. The server side (`protobuf_messages`) has a function per message, because it runs for every client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from types import NoneType
from typing import Any, Final, get_args, get_origin

import msgspec
from google.protobuf.message import DecodeError, Message
from msgspec import Raw, Struct

from beaconfire.base.errors import PayloadError
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush, Push
from beaconfire.protocols.centrifuge import schema_pb2 as wire
from beaconfire.protocols.centrifuge.client_codec import PING, Reply, ReplyError, ServerMessage, required_fields, zero
from beaconfire.protocols.centrifuge.fields import PUSHES, REQUESTS, RESULTS
from beaconfire.protocols.centrifuge.protobuf_codec import read_varint, write_varint
from beaconfire.protocols.centrifuge.requests import PublishRequest, Request
from beaconfire.protocols.port import ProtocolError

_REQUEST_NAMES: Final = {request: name for name, request in REQUESTS.items()}
_RESULTS_BY_NAME: Final = {name: result for result, name in RESULTS.items()}
_PUSHES_BY_NAME: Final = {name: push for push, name in PUSHES.items()}


class ClientProtobufCodec:
    """`ClientCodec` of `centrifuge-protobuf`. Payloads of decoded messages own their bytes."""

    name: Final = "centrifuge-protobuf"
    binary: Final = True
    separator: Final = b""
    pong: Final = b"\x00"

    def encode(self, number: int, request: Request) -> bytes:
        command = wire.Command()
        command.id = number
        try:
            if type(request) is PublishRequest:  # the most frequent one, in 2/3 of the time
                command.publish.channel = request.channel
                command.publish.data = bytes(request.data)
            else:
                body = getattr(command, _REQUEST_NAMES[type(request)])
                body.SetInParent()
                _write(body, request)
        except UnicodeEncodeError as error:
            raise PayloadError(f"a text is not Unicode: {error.reason}") from None
        message = command.SerializeToString()
        return write_varint(len(message)) + message

    def split(self, frame: bytes) -> Sequence[bytes]:
        messages = []
        position, end = 0, len(frame)
        while position < end:
            length = frame[position]
            if length < 0x80:
                position += 1
            elif position + 1 < end and (high := frame[position + 1]) < 0x80:
                # Most lengths have two bytes. To read them here instead of with a call saves 0.3 µs.
                length = length & 0x7F | high << 7
                position += 2
            else:
                length, position = read_varint(frame, position)
            if length > end - position:
                raise ProtocolError(f"a message of {length} bytes is announced, but only {end - position} follow")
            messages.append(frame[position : position + length])
            position += length
        return messages

    def decode(self, message: bytes) -> ServerMessage:
        if not message:
            return PING
        try:
            reply = wire.Reply.FromString(message)
        except DecodeError as error:
            raise ProtocolError(f"not a Protobuf reply: {error}") from None
        number = reply.id
        if not number:
            return _read_push(reply.push) if reply.HasField("push") else PING
        for field, body in reply.ListFields():
            if kind := _RESULTS_BY_NAME.get(field.name):
                return Reply(number, _read(kind, body))
            if field.name == "error":
                return Reply(number, ReplyError(body.code, body.message, body.temporary))
        raise ProtocolError(f"reply {number} holds no known result; expected one of {', '.join(RESULTS.values())}")


# --- from the server -----------------------------------------------------------------------------------------------


def _read_push(push: wire.Push) -> Push | None:
    for field, body in push.ListFields():
        if kind := _PUSHES_BY_NAME.get(field.name):
            if kind is PublicationPush:
                return PublicationPush(push.channel, _read(Publication, body))
            known: Push = _read(kind, body, {"channel": push.channel} if "channel" in kind.__struct_fields__ else {})
            return known
    return None


def _read(kind: Any, message: Message, values: dict[str, object] | None = None) -> Any:
    """Makes our struct from a generated message. `values` are fields that are not in this message."""
    values = {} if values is None else values
    readers = _readers(kind)
    for field, value in message.ListFields():  # only fields of the schema, and our structs have all of them
        values[field.name] = readers[field.name](value)
    for name, field_type in required_fields(kind).items():
        if name not in values:
            values[name] = zero(field_type)
    return kind(**values)


@cache
def _readers(kind: type[Struct]) -> dict[str, Callable[[Any], object]]:
    return {field.name: _reader(field.type) for field in msgspec.structs.fields(kind)}


def _reader(kind: Any) -> Callable[[Any], object]:
    """A function that converts a value of a generated message to a field of this type."""
    if NoneType in get_args(kind):
        [kind] = [option for option in get_args(kind) if option is not NoneType]
    if get_origin(kind) is list:
        item = _reader(get_args(kind)[0])
        return lambda values: [item(value) for value in values]
    if get_origin(kind) is dict:
        item = _reader(get_args(kind)[1])
        return lambda values: {key: item(value) for key, value in values.items()}
    return partial(_read, kind) if issubclass(kind, Struct) else kind


# --- to the server -------------------------------------------------------------------------------------------------


def _write(out: Any, struct: Struct) -> None:
    """Fills a generated message in place. Zero values are left out; a struct is present even if it is empty."""
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        match value:
            case Raw():
                setattr(out, name, bytes(value))
            case Struct():
                getattr(out, name).SetInParent()
                _write(getattr(out, name), value)
            case list():
                for item in value:
                    if isinstance(item, Struct):
                        _write(getattr(out, name).add(), item)
                    else:
                        getattr(out, name).append(item)
            case dict():
                for key, item in value.items():
                    if isinstance(item, Struct):
                        _write(getattr(out, name)[key], item)
                    else:
                        getattr(out, name)[key] = item
            case _:
                if value:
                    setattr(out, name, value)
