"""For any bytes, decoding returns commands or raises ProtocolError, and no payload can break a client."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from beaconfire.base.errors import PayloadError
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush
from beaconfire.protocols.centrifuge.connection import CentrifugeCodec
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec
from beaconfire.protocols.centrifuge.requests import Command
from beaconfire.protocols.port import ProtocolError

from .test_vectors import REQUESTS

JSON: CentrifugeCodec = JsonCodec()
PROTOBUF: CentrifugeCodec = ProtobufCodec()
many = settings(max_examples=1500, deadline=None, derandomize=True, database=None)

VALID_JSON = [b"\n".join(bytes(line) for line in vector.json) for vector in REQUESTS]
VALID_PROTOBUF = [bytes.fromhex(vector.protobuf) for vector in REQUESTS]
JSON_TOKENS = [
    *(b'{}[]:,"\\ \n\r\t\0'[i : i + 1] for i in range(12)),
    *(b"null", b"true", b"false", b"NaN", b"-", b"0", b"1", b".", b"e", b"9" * 40, b"\\u", b"d83d", b"\\ud83d", b"a"),
    *(b"\xff", b"\xed\xa0\x80", "é".encode(), "🔥".encode(), b'"id":1', b'"publish":', b'"data":', b'"channel":"a"'),
    *(b'{"id":1,"rpc":{"data":', b"}}"),
]


@st.composite
def mutated(draw: st.DrawFn, valid: list[bytes], pieces: st.SearchStrategy[bytes]) -> bytes:
    """A valid frame with pieces inserted, removed or overwritten."""
    frame = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(frame)))
        end = draw(st.integers(start, min(len(frame), start + 4)))
        frame = frame[:start] + draw(pieces) + frame[end:]
    return frame


def survives(codec: CentrifugeCodec, frame: bytes) -> list[Command]:
    try:
        commands = list(codec.decode(frame, True))
    except ProtocolError:
        return []
    assert commands
    return commands


def strictly_json(text: bytes) -> object:
    """Whether text is JSON by the standard: UTF-8, and neither NaN nor Infinity. Independent of our own decoder."""

    def refuse(constant: str) -> object:
        raise ValueError(constant)

    return json.loads(text.decode(), parse_constant=refuse)


def assert_payloads_are_json(commands: list[Command]) -> None:
    for command in commands:
        data = getattr(command.request, "data", Raw(b""))
        if data:
            strictly_json(bytes(data))


@many
@given(st.binary(max_size=64))
def test_random_bytes(frame: bytes) -> None:
    """Random bytes are rejected or decoded."""
    assert_payloads_are_json(survives(JSON, frame))
    survives(PROTOBUF, frame)


@many
@given(mutated(VALID_JSON, st.sampled_from(JSON_TOKENS) | st.binary(max_size=3)))
def test_mutated_json(frame: bytes) -> None:
    """A damaged JSON frame is rejected, or its payloads are still JSON."""
    assert_payloads_are_json(survives(JSON, frame))


@many
@given(mutated(VALID_PROTOBUF, st.binary(max_size=3)))
def test_mutated_protobuf(frame: bytes) -> None:
    """A damaged Protobuf frame is rejected or decoded."""
    survives(PROTOBUF, frame)


@many
@given(st.lists(st.sampled_from(JSON_TOKENS), max_size=12).map(b"".join))
def test_payloads_of_other_encodings(payload: bytes) -> None:
    """A payload from a publisher of another encoding is embedded in one line of JSON, or rejected."""
    push = PublicationPush("a", Publication(data=Raw(payload)))
    try:
        expected = strictly_json(payload)
        acceptable = True
    except ValueError:
        acceptable = False
    try:
        line = JSON.encode_push(push).data
    except PayloadError:
        assert not acceptable
        return
    assert b"\n" not in line
    assert b"\r" not in line
    pub = strictly_json(line)["push"]["pub"]  # type: ignore[index]  # the envelope is ours
    if not payload:
        assert pub == {}
    elif b"\\ud83d" in payload:
        assert list(pub) == ["data"]  # Surrogates may have been replaced.
    else:
        assert acceptable
        assert pub == {"data": expected}


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'], ids=["arrays", "objects", "both"])
@pytest.mark.parametrize("place", [b"%b", b'{"id":1,"rpc":{"data":%b}}', b'{"id":1,"x":%b,"ping":{}}'])
@pytest.mark.parametrize("depth", [600, 100_000])
def test_deep_json(opening: bytes, place: bytes, depth: int) -> None:
    """Deep nesting is rejected at any place, even if the brackets are never closed."""
    closing = b"".join({b"[": b"]", b"{": b"}"}[opening[i : i + 1]] for i in range(len(opening)) if opening[i] in b"[{")
    for text in (opening * depth, opening * depth + b"1" + closing[::-1] * depth):
        with pytest.raises(ProtocolError):
            JSON.decode(place % text, False)
        with pytest.raises(PayloadError):
            JSON.encode_push(PublicationPush("a", Publication(data=Raw(text))))


def test_deep_protobuf() -> None:
    """A tags filter with unlimited nesting is rejected."""
    node = b""
    for _ in range(5000):
        node = b"\x32" + varint(len(node)) + node
    subscribe = b"\x0a\x01a\x6a" + varint(len(node)) + node
    command = b"\x08\x01\x2a" + varint(len(subscribe)) + subscribe
    with pytest.raises(ProtocolError, match="not a Protobuf command"):
        PROTOBUF.decode(varint(len(command)) + command, True)


def varint(number: int) -> bytes:
    """A simple encoder of varints, also for large numbers."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F)
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])
