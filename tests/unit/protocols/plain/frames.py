"""Codecs of the plain protocol with and without a lobby, samples of frames, and functions that decode frames."""

from __future__ import annotations

import json
from typing import Any

import pytest

from beaconfire.model.pushes import Push
from beaconfire.protocols.plain import client_messages
from beaconfire.protocols.plain.codec import PlainCodec
from beaconfire.protocols.plain.requests import PlainCommand, Ref
from beaconfire.protocols.port import Codec

CODEC: Codec = PlainCodec(None)
LOBBY: Codec = PlainCodec("lobby")

with_and_without_lobby = pytest.mark.parametrize("lobby", [False, True], ids=["lobby off", "lobby on"])

NO_MESSAGES: list[tuple[bytes, bool]] = [
    (b"hello", False),
    (b"", False),
    (b"5", False),
    (b'"text"', False),
    (b"[]", False),
    (b"{}", False),
    (b'{"type":5}', False),
    (b'{"type":null}', False),
    (b'{"type":"ping"', False),
    (b'{"type":"ping"}x', False),
    ("\ufeff{}".encode(), False),
    (b"[" * 100_000, False),
    (b'{"type":"ping"}', True),
    (b"\xff\x00", True),
    (b"", True),
]
"""Frames that are no message of the protocol, each with whether it is binary."""


def decode(frame: str | bytes, lobby: bool = False, binary: bool = False) -> PlainCommand:
    """The command of a frame."""
    return client_messages.decode(frame.encode() if isinstance(frame, str) else frame, binary, lobby)


def ref(kind: str = "ping", identifier: str | None = "1", **fields: object) -> Ref:
    """The ref of a message of this type for the room `kitchen`. `identifier` is JSON text."""
    message = json.dumps({"type": kind, "room": "kitchen", "data": 0, "token": "t", **fields})
    found = decode(message[:-1] + (f', "id": {identifier}}}' if identifier is not None else "}")).ref
    assert found is not None
    return found


def decoded(message: bytes) -> dict[str, Any]:
    """The message that a client gets in a text frame."""
    fields = json.loads(message)
    assert isinstance(fields, dict)
    return fields


def pushed(push: Push, codec: Codec = CODEC) -> dict[str, Any]:
    """The message that a client gets for a push, in a text frame."""
    payload = codec.encode_push(push)
    assert not payload.binary
    return decoded(payload.data)
