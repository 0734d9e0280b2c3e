"""Frames that are no message of the protocol, as publications and back.

Every client of the lobby's channel shall see something sensible, so what is published is JSON: the frame itself
if it is JSON, else a JSON string of its text or of its bytes in base64. The tag `frame` says which, so that plain
clients get the original frame, byte for byte and of the original kind.
"""

from __future__ import annotations

import base64
import binascii

import msgspec
from msgspec import Raw

from beaconfire.model.publication import Publication
from beaconfire.model.requests import LobbyFrame
from beaconfire.protocols import json_payload
from beaconfire.protocols.port import Payload

FRAME_TAG = "frame"

_any_json = msgspec.json.Decoder(Raw)
_string = msgspec.json.Decoder(str)


def is_json(text: bytes) -> bool:
    """Whether this is one JSON text as it stands. One that would have to be repaired first counts as none."""
    try:
        return bytes(json_payload.read(_any_json.decode, text)) == text.strip(b" \t\r\n")
    except json_payload.NotJSONError:
        return False


def wrap(frame: bytes, binary: bool) -> LobbyFrame:
    """A client's frame, ready to be published. A text frame is valid UTF-8."""
    if binary:
        return LobbyFrame(Raw(b'"' + base64.b64encode(frame) + b'"'), {FRAME_TAG: "binary"})
    if is_json(frame):
        return LobbyFrame(Raw(frame), {FRAME_TAG: "json"})
    return LobbyFrame(Raw(msgspec.json.encode(frame.decode())), {FRAME_TAG: "text"})


def unwrap(publication: Publication) -> Payload | None:
    """The frame that `wrap` was given; None for a publication that is none, or only claims to be one."""
    data = bytes(publication.data)
    try:
        match (publication.tags or {}).get(FRAME_TAG):
            case "json" if is_json(data):
                return Payload(data)
            case "text":
                return Payload(_string.decode(data).encode())
            case "binary":
                return Payload(base64.b64decode(_string.decode(data), validate=True), binary=True)
    except (msgspec.DecodeError, UnicodeError, binascii.Error, ValueError):
        # Other publishers may set the tag as well, with data that does not fit it.
        return None
    return None
