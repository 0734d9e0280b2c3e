"""The Centrifuge protocol, which Beaconfire and Centrifugo both speak, in JSON and Protobuf, and their HTTP API."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from beaconfire.auth.issue import connection_token
from beaconfire.protocols.centrifuge.schema_pb2 import Command
from bench.peers.base import Dialect

SECRET = "a-secret-of-the-benchmark-of-32-bytes"
"""What tokens are signed with; stands in the configurations too."""

API_KEY = "a-key-of-the-benchmark"
"""What opens the HTTP API; stands in the configurations too."""

HISTORY = "log:"
"""Channels whose names begin so keep history and can be recovered; others keep nothing."""

PUBLISH_ID = 2**32 - 1
"""The id of every publish. In Protobuf its bytes, FF FF FF FF 0F, occur nowhere else in what is measured."""

TOKEN_LIFETIME_S = 24 * 3600


class Position(NamedTuple):
    """Where a channel's history stands."""

    offset: int
    epoch: str


class RecoveringDialect(Dialect, Protocol):
    """A dialect in which a client can ask for what it missed."""

    def recover_greetings(self, user: str, channel: str, position: Position) -> list[bytes]:
        """Like `greetings` for one channel; the answer to the last holds what was published since `position`."""


class CentrifugeJson:
    """Commands as JSON in text frames."""

    path = "/connection/websocket"
    binary = False
    unprompted = 0
    ack = b'"publish":{}'
    echo = True

    def greetings(self, user: str, channels: Sequence[str]) -> list[bytes]:
        subscribes = (self._command(number, subscribe={"channel": name}) for number, name in enumerate(channels, 2))
        return [self._command(1, connect={"token": _token(user)}), *subscribes]

    def publish(self, channel: str, data: str) -> bytes:
        return self._command(PUBLISH_ID, publish={"channel": channel, "data": data})

    def recover_greetings(self, user: str, channel: str, position: Position) -> list[bytes]:
        subscribe = {"channel": channel, "recover": True, "epoch": position.epoch, "offset": position.offset}
        return [self._command(1, connect={"token": _token(user)}), self._command(2, subscribe=subscribe)]

    @staticmethod
    def _command(number: int, **request: Mapping[str, object]) -> bytes:
        return json.dumps({"id": number, **request}, separators=(",", ":")).encode()


class CentrifugeProtobuf:
    """Commands as Protobuf in binary frames. Data are the same bytes as in JSON, quotes included."""

    path = "/connection/websocket?cf_protocol=protobuf"
    binary = True
    unprompted = 0
    ack = bytes.fromhex("08ffffffff0f 4200")  # a Reply's id, and an empty result of publish
    echo = True

    def greetings(self, user: str, channels: Sequence[str]) -> list[bytes]:
        commands = [Command(id=1), *(Command(id=number) for number, _ in enumerate(channels, 2))]
        commands[0].connect.token = _token(user)
        for command, channel in zip(commands[1:], channels, strict=True):
            command.subscribe.channel = channel
        return [self._delimited(command) for command in commands]

    def publish(self, channel: str, data: str) -> bytes:
        command = Command(id=PUBLISH_ID)
        command.publish.channel = channel
        command.publish.data = f'"{data}"'.encode()
        message = self._delimited(command)
        if message.count(b"~") != data.count("~"):
            raise ValueError("a length comes to 126, which is the byte of a mark: take data of another length")
        return message

    def recover_greetings(self, user: str, channel: str, position: Position) -> list[bytes]:
        connect, subscribe = Command(id=1), Command(id=2)
        connect.connect.token = _token(user)
        subscribe.subscribe.channel = channel
        subscribe.subscribe.recover = True
        subscribe.subscribe.offset, subscribe.subscribe.epoch = position
        return [self._delimited(connect), self._delimited(subscribe)]

    @staticmethod
    def _delimited(command: Command) -> bytes:
        """With its length before it, as a varint."""
        message = command.SerializeToString()
        length, prefix = len(message), bytearray()
        while length > 127:
            prefix.append(length & 127 | 128)
            length >>= 7
        return bytes([*prefix, length]) + message


DIALECTS: Mapping[str, RecoveringDialect] = {"json": CentrifugeJson(), "protobuf": CentrifugeProtobuf()}


def api_request(port: int, method: str, body: bytes) -> bytes:
    """A whole HTTP/1.1 request to `/api/<method>`, on a connection that is kept alive. `body` is JSON."""
    head = (
        f"POST /api/{method} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-API-Key: {API_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def position(answer: bytes) -> Position:
    """The position in the body of an answer to the API's `history` or `publish`. Raises ValueError if it has none."""
    content = json.loads(answer)
    if not isinstance(content, dict) or not content.get("result", {}).get("epoch"):
        raise ValueError(f"no position: {answer.decode(errors='replace')}")
    return Position(content["result"].get("offset", 0), content["result"]["epoch"])


def _token(user: str) -> str:
    return connection_token(SECRET, user, now_unix_s=time.time(), expires_in_s=TOKEN_LIFETIME_S)
