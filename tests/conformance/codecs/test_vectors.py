"""The exact bytes of the vectors in `vectors/`, for both encodings and in both directions.

Payloads are JSON in the vectors, and are compared as text, byte for byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw, Struct

from beaconfire.base import errors
from beaconfire.base.errors import CommandError
from beaconfire.model import position, publication, pushes
from beaconfire.model import requests as model_requests
from beaconfire.protocols.centrifuge import fields, requests, results
from beaconfire.protocols.centrifuge.connection import CentrifugeCodec
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec
from beaconfire.protocols.centrifuge.requests import Command
from beaconfire.protocols.port import Payload, ProtocolError

from . import official

JSON: CentrifugeCodec = JsonCodec()
PROTOBUF: CentrifugeCodec = ProtobufCodec()
CODECS = {codec.name: codec for codec in (JSON, PROTOBUF)}
VECTORS = Path(__file__).parent / "vectors"


class Expected(Struct, forbid_unknown_fields=True):
    """A message with the name of its type in `beaconfire.model`."""

    type: str
    fields: Raw
    ref: int | None

    def command(self) -> Command:
        return Command(self.ref, message(self.type, self.fields))


class RequestVector(Struct, forbid_unknown_fields=True):
    name: str
    json: list[Raw]
    protobuf: str
    commands: list[Expected]


class ReplyVector(Struct, forbid_unknown_fields=True):
    name: str
    ref: int
    type: str
    fields: Raw
    json: Raw
    protobuf: str


class ErrorVector(Struct, forbid_unknown_fields=True):
    name: str
    ref: int
    code: int
    detail: str
    json: Raw
    protobuf: str


class PushVector(Struct, forbid_unknown_fields=True):
    name: str
    type: str
    fields: Raw
    json: Raw
    protobuf: str


class MalformedVector(Struct, forbid_unknown_fields=True):
    name: str
    codec: str
    frame: str
    error: str


def load(file: str, kind: type) -> list[Any]:
    vectors: list[Any] = msgspec.json.decode((VECTORS / file).read_bytes(), type=list[kind])  # type: ignore[valid-type]  # a type made at run time
    return vectors


MODEL = {
    name: kind
    for module in (position, publication, pushes, model_requests, requests, results)
    for name, kind in vars(module).items()
}


def message(name: str, fields: Raw) -> Any:
    return msgspec.json.decode(fields, type=MODEL[name])


def text(payload: Payload) -> str:
    assert not payload.binary
    return payload.data.decode()


def hex_text(payload: Payload) -> str:
    assert payload.binary
    return payload.data.hex(" ")


def by_name(vector: Any) -> str:
    return str(vector.name)


REQUESTS = load("requests.json", RequestVector)
REPLIES = load("replies.json", ReplyVector)
ERRORS = load("errors.json", ErrorVector)
PUSHES = load("pushes.json", PushVector)
MALFORMED = load("malformed.json", MalformedVector)


@pytest.mark.parametrize("vector", REQUESTS, ids=by_name)
def test_request(vector: RequestVector) -> None:
    """Both encodings of the same commands are decoded to the same messages."""
    expected = [command.command() for command in vector.commands]
    assert list(JSON.decode(b"\n".join(bytes(line) for line in vector.json), False)) == expected
    assert list(PROTOBUF.decode(bytes.fromhex(vector.protobuf), True)) == expected


@pytest.mark.parametrize("vector", REQUESTS, ids=by_name)
def test_request_is_the_output_of_the_sdk(vector: RequestVector) -> None:
    """The Protobuf bytes of a request vector are those that the official SDK encodes for its JSON."""
    frame = official.command_frame([bytes(line).decode() for line in vector.json])
    assert frame == official.known_to_the_sdk(bytes.fromhex(vector.protobuf))


@pytest.mark.parametrize("vector", REPLIES, ids=by_name)
def test_reply(vector: ReplyVector) -> None:
    """A result is encoded as exactly these bytes."""
    result = message(vector.type, vector.fields)
    assert text(JSON.encode_reply(vector.ref, result)) == bytes(vector.json).decode()
    assert hex_text(PROTOBUF.encode_reply(vector.ref, result)) == vector.protobuf


@pytest.mark.parametrize("vector", ERRORS, ids=by_name)
def test_error(vector: ErrorVector) -> None:
    """An error is encoded as exactly these bytes."""
    (code,) = (code for code in errors.ERRORS if code.code == vector.code)
    error = CommandError(code, "for the log only")
    assert text(JSON.encode_error(vector.ref, error, vector.detail)) == bytes(vector.json).decode()
    assert hex_text(PROTOBUF.encode_error(vector.ref, error, vector.detail)) == vector.protobuf


@pytest.mark.parametrize("vector", PUSHES, ids=by_name)
def test_push(vector: PushVector) -> None:
    """A push is encoded as exactly these bytes."""
    push = message(vector.type, vector.fields)
    assert text(JSON.encode_push(push)) == bytes(vector.json).decode()
    assert hex_text(PROTOBUF.encode_push(push)) == vector.protobuf


@pytest.mark.parametrize("vector", [*REPLIES, *ERRORS, *PUSHES], ids=by_name)
def test_the_sdk_decodes_the_same_message_from_both_encodings(vector: ReplyVector | ErrorVector | PushVector) -> None:
    """For every vector with a reply or a push."""
    from_protobuf = official.reply_from_protobuf(bytes.fromhex(vector.protobuf))
    assert from_protobuf == official.reply_from_json(bytes(vector.json).decode())


@pytest.mark.parametrize("vector", MALFORMED, ids=lambda vector: f"{vector.codec}: {vector.name}")
def test_malformed(vector: MalformedVector) -> None:
    """A malformed frame is rejected with a text that names the error."""
    with pytest.raises(ProtocolError) as caught:
        CODECS[vector.codec].decode(bytes.fromhex(vector.frame), True)
    assert any(text in str(caught.value) for text in vector.error.split("|")), str(caught.value)


def test_pings() -> None:
    """A ping is an empty reply."""
    assert JSON.encode_ping() == Payload(b"{}", binary=False)
    assert PROTOBUF.encode_ping() == Payload(b"\x00", binary=True)


def test_every_message_has_a_vector() -> None:
    """Every request, result and push of the protocol has a vector."""
    requests = {command.type for vector in REQUESTS for command in vector.commands}
    assert requests == {request.__name__ for request in fields.REQUESTS.values()} | {"Pong"}
    assert {vector.type for vector in REPLIES} == {result.__name__ for result in fields.RESULTS}
    assert {vector.type for vector in PUSHES} == {push.__name__ for push in fields.PUSHES}
