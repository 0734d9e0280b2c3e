"""The Centrifuge protocol of Beaconfire and Centrifugo, in JSON and Protobuf, and their HTTP API."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec import Raw

from beaconfire.auth.issue import connection_token
from beaconfire.protocols.centrifuge.client_codec import ClientCodec
from beaconfire.protocols.centrifuge.client_json import ClientJsonCodec
from beaconfire.protocols.centrifuge.client_protobuf import ClientProtobufCodec
from beaconfire.protocols.centrifuge.requests import ConnectRequest, PublishRequest, Request, SubscribeRequest
from bench.peers.base import PeerProtocol

SECRET = "a-secret-of-the-benchmark-of-32-bytes"
"""The key that signs tokens; also in the configuration files."""

API_KEY = "a-key-of-the-benchmark"
"""The key of the HTTP API; also in the configuration files."""

HISTORY = "log:"
"""The prefix of channels that keep history and can be recovered; other channels keep nothing."""

PUBLISH_ID = 2**32 - 1
"""The id of every publish command. Its Protobuf bytes, FF FF FF FF 0F, occur nowhere else in the traffic."""

TOKEN_LIFETIME_S = 24 * 3600


class Position(NamedTuple):
    """A position in a channel's history."""

    offset: int
    epoch: str


class RecoveringProtocol(PeerProtocol, Protocol):
    """A protocol in which a client can recover missed messages."""

    def recovery_messages(self, user: str, channel: str, position: Position) -> list[bytes]:
        """As `setup_messages`, for one channel. The last reply contains the messages published since `position`."""


class CentrifugeProtocol:
    """One encoding. Data are the same bytes in both, quotes included."""

    initial_messages = 0
    echo = True

    def __init__(self, codec: ClientCodec, path: str, ack: bytes) -> None:
        self._codec = codec
        self.path = path
        self.binary = codec.binary
        self.ack = ack

    def setup_messages(self, user: str, channels: Sequence[str]) -> list[bytes]:
        return self._connect(user, [SubscribeRequest(channel) for channel in channels])

    def publish(self, channel: str, data: str) -> bytes:
        message = self._codec.encode(PUBLISH_ID, PublishRequest(channel, Raw(f'"{data}"'.encode())))
        if message.count(b"~") != data.count("~"):
            raise ValueError("a length is 126, which is the byte of a mark: use data of another length")
        return message

    def recovery_messages(self, user: str, channel: str, position: Position) -> list[bytes]:
        subscribe = SubscribeRequest(channel, recover=True, epoch=position.epoch, offset=position.offset)
        return self._connect(user, [subscribe])

    def _connect(self, user: str, subscribes: Sequence[SubscribeRequest]) -> list[bytes]:
        requests: list[Request] = [ConnectRequest(token=_token(user)), *subscribes]
        return [self._codec.encode(number, request) for number, request in enumerate(requests, 1)]


PROTOCOLS: Mapping[str, RecoveringProtocol] = {
    "json": CentrifugeProtocol(ClientJsonCodec(), "/connection/websocket", ack=b'"publish":{}'),
    "protobuf": CentrifugeProtocol(
        ClientProtobufCodec(),
        "/connection/websocket?cf_protocol=protobuf",
        ack=bytes.fromhex("08ffffffff0f 4200"),  # the id of a reply, and an empty publish result
    ),
}


def api_request(port: int, method: str, body: bytes) -> bytes:
    """A complete HTTP/1.1 request to `/api/<method>` for a keep-alive connection. `body` is JSON."""
    head = (
        f"POST /api/{method} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-API-Key: {API_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def read_position(answer: bytes) -> Position:
    """The position in the response body of the API's `history` or `publish`. Raises ValueError if there is none."""
    content = json.loads(answer)
    if not isinstance(content, dict) or not content.get("result", {}).get("epoch"):
        raise ValueError(f"no position: {answer.decode(errors='replace')}")
    return Position(content["result"].get("offset", 0), content["result"]["epoch"])


def _token(user: str) -> str:
    return connection_token(SECRET, user, now_unix_s=time.time(), expires_in_s=TOKEN_LIFETIME_S)
