"""Converts frames that are no message of the protocol to publications of the lobby channel, and back.

Clients of other protocols can also subscribe to the lobby channel, so publications are JSON: the frame itself if it is
JSON, otherwise a JSON string of its text, or of its bytes in base64. The tag `frame` names the form, so that clients of
the plain protocol get the original frame, with the same bytes and the same kind (text or binary).
"""

from __future__ import annotations

import base64
import binascii

import msgspec
from msgspec import Raw

from beaconfire.model.publication import Publication
from beaconfire.protocols import json_payload
from beaconfire.protocols.plain.requests import LobbyFrame
from beaconfire.protocols.port import Payload

FRAME_TAG = "frame"

_any_json = msgspec.json.Decoder(Raw)
_string = msgspec.json.Decoder(str)


def is_json(text: bytes) -> bool:
    """Whether this is a JSON text that needs no replacement of surrogates."""
    try:
        return bytes(json_payload.decode_json(_any_json.decode, text)) == text.strip(b" \t\r\n")
    except json_payload.NotJSONError:
        return False


def wrap(frame: bytes, binary: bool) -> LobbyFrame:
    """Converts a frame to a publish request. The text of a text frame must be valid UTF-8."""
    if binary:
        return LobbyFrame(Raw(b'"' + base64.b64encode(frame) + b'"'), {FRAME_TAG: "binary"})
    if is_json(frame):
        return LobbyFrame(Raw(frame), {FRAME_TAG: "json"})
    return LobbyFrame(Raw(msgspec.json.encode(frame.decode())), {FRAME_TAG: "text"})


def unwrap(publication: Publication) -> Payload | None:
    """Returns the frame that `wrap` converted. None for any other publication, with or without the tag."""
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
        # Other publishers can set the tag, too, with data that does not match it.
        return None
    return None
