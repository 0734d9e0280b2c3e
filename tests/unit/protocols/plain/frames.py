"""Codecs of the plain protocol with and without a lobby, samples of frames, and helpers that decode frames."""

from __future__ import annotations

import json
from typing import Any

from beaconfire.protocols.centrifuge.requests import Command
from beaconfire.protocols.plain.codec import PlainCodec
from beaconfire.protocols.port import Codec, Payload

CODEC: Codec = PlainCodec(None)
LOBBY: Codec = PlainCodec("lobby")

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


def decode(frame: str | bytes, codec: Codec = CODEC, binary: bool = False) -> Command:
    """The only command of a frame."""
    (command,) = codec.decode(frame.encode() if isinstance(frame, str) else frame, binary)
    return command


def ref(kind: str = "ping", identifier: str | None = "1", **fields: object) -> object:
    """The ref of a message of this type for the room `kitchen`. `identifier` is JSON text."""
    message = json.dumps({"type": kind, "room": "kitchen", "data": 0, "token": "t", **fields})
    return decode(message[:-1] + (f', "id": {identifier}}}' if identifier is not None else "}")).ref


def decoded(payload: Payload) -> dict[str, Any]:
    """The message that a client gets in a text frame."""
    assert not payload.binary
    message = json.loads(payload.data)
    assert isinstance(message, dict)
    return message
