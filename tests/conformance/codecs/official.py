"""The Protobuf module of the official Python SDK, as the reference for what clients encode and decode."""

from __future__ import annotations

import base64
import json
from typing import Any

from centrifuge.codecs import _varint_decode, _varint_encode
from centrifuge.protocol import client_pb2
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

PAYLOAD_FIELDS = {"data", "conn_info", "chan_info"}


def command_frame(commands: list[str]) -> bytes:
    """The bytes that a client sends for these commands. The commands are JSON texts with compact payloads."""
    return _frame([_from_json(client_pb2.Command(), text) for text in commands])


def known_to_the_sdk(frame: bytes) -> bytes:
    """A frame of commands after decoding and encoding by the SDK: without the fields that the SDK does not know yet."""
    commands = []
    position = 0
    while position < len(frame):
        length, position = _varint_decode(frame, position)
        commands.append(_known(client_pb2.Command.FromString(frame[position : position + length])))
        position += length
    return _frame(commands)


def reply_from_protobuf(frame: bytes) -> Message:
    """The only reply in a frame, decoded by the SDK."""
    length, position = _varint_decode(frame, 0)
    assert position + length == len(frame)
    return _known(client_pb2.Reply.FromString(frame[position:]))


def reply_from_json(text: str) -> Message:
    """The same from JSON, with payloads as compact text."""
    return _from_json(client_pb2.Reply(), text)


def _frame(messages: list[Message]) -> bytes:
    bodies = [message.SerializeToString(deterministic=True) for message in messages]
    return b"".join(bytes(_varint_encode(len(body))) + body for body in bodies)


def _known(message: Any) -> Message:
    message.DiscardUnknownFields()
    return _message(message)


def _from_json(message: Any, text: str) -> Message:
    ParseDict(_with_bytes(json.loads(text)), message, ignore_unknown_fields=True)
    return _message(message)


def _message(message: Any) -> Message:
    assert isinstance(message, Message)
    return message


def _with_bytes(value: Any) -> Any:
    """Replaces payloads by base64, the form of bytes in Protobuf's JSON mapping."""
    if isinstance(value, dict):
        return {name: _payload(item) if name in PAYLOAD_FIELDS else _with_bytes(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_bytes(item) for item in value]
    return value


def _payload(value: Any) -> str:
    return base64.b64encode(compact(value).encode()).decode()


def compact(value: Any) -> str:
    """A canonical text for a value, so that payloads can be compared after decoding and encoding."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
