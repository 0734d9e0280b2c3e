"""A client of the plain protocol."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from beaconfire.model.position import StreamPosition
from beaconfire.protocols.port import Wire
from beaconfire.session.factory import SessionFactory
from beaconfire.session.session import Session
from tests.conformance.sessions import neutral
from tests.conformance.sessions.client import Client
from tests.conformance.sessions.neutral import Received, Request
from tests.fakes.transport import HANDSHAKE
from tests.unit.kit import NodeHarness


class PlainClient(Client):
    def __init__(self, harness: NodeHarness, sessions: SessionFactory, wire: Wire) -> None:
        super().__init__(harness)
        self._session = sessions.open_session(self.transport, wire, HANDSHAKE)

    @property
    def session(self) -> Session:
        return self._session

    def send_bytes(self, data: bytes) -> None:
        self._session.on_data(data, False)

    def drop_connection(self) -> None:
        self._session.on_closed()

    def send_connect(self, token: str, channels: Iterable[str] = ()) -> None:
        assert not channels, "a handshake names no rooms"
        self.send_bytes(json.dumps({"type": "handshake", "id": 0, **({"token": token} if token else {})}).encode())

    def encode(self, ref: int, request: Request) -> bytes:
        return json.dumps({"id": ref, **_plain_message(request)}).encode()

    def keep_alive(self) -> None:
        for _ in range(self.transport.pings):
            self._session.on_transport_pong()
        self.transport.pings = 0

    def decode(self, data: bytes) -> Iterator[Received]:
        for line in data.splitlines():
            yield _received(json.loads(line))


def _plain_message(request: Request) -> dict[str, Any]:
    match request:
        case neutral.Subscribe(channel, since, token):
            position = {"since": {"offset": since.offset, "epoch": since.epoch}} if since is not None else {}
            return {"type": "join", "room": channel, **position, **({"token": token} if token else {})}
        case neutral.Unsubscribe(channel):
            return {"type": "leave", "room": channel}
        case neutral.Publish(channel, data):
            return {"type": "message", "room": channel, "data": data, "echo": True}
        case neutral.History(channel, limit, since):
            position = {"since": {"offset": since.offset, "epoch": since.epoch}} if since is not None else {}
            return {"type": "history", "room": channel, "limit": limit, **position}
        case neutral.Presence(channel):
            return {"type": "presence", "room": channel}
        case neutral.Refresh(token):
            return {"type": "refresh", "token": token}
        case neutral.SubRefresh(channel, token):
            return {"type": "refresh", "room": channel, "token": token}
        case _:
            raise AssertionError(f"the plain protocol has no message for {request}")


def _received(message: dict[str, Any]) -> Received:
    ref = message.get("id", -1)
    match message["type"]:
        case "welcome":
            rooms = {room: _subscribed(joined) for room, joined in message.get("rooms", {}).items()}
            return neutral.Connected(message["client"], rooms)
        case "error":
            return neutral.Reply(ref, message["code"])
        case "joined":
            return neutral.Reply(ref, value=_subscribed(message))
        case "history":
            return neutral.Reply(ref, value=tuple(entry["data"] for entry in message["messages"]))
        case "presence":
            return neutral.Reply(ref, value=set(message["clients"]))
        case "refreshed" if ref == -1:
            return neutral.Expires(message.get("ttl", 0))
        case "refreshed":
            return neutral.Reply(ref, value=message.get("ttl", 0))
        case "ack":
            return neutral.Reply(ref)
        case "message":
            return neutral.Published(message["room"], message["data"], message.get("offset", 0))
        case "join" if "self" in message:
            return neutral.Started(message["room"])
        case "join":
            return neutral.Joined(message["room"], message["client"])
        case "leave":
            return neutral.Left(message["room"], message["client"])
        case "left" if "code" in message:
            return neutral.Ended(message["room"], message["code"])
        case "left":
            return neutral.Reply(ref)
        case _:
            raise AssertionError(f"unexpected: {message}")


def _subscribed(joined: dict[str, Any]) -> neutral.Subscribed:
    position = StreamPosition(joined["offset"], joined.get("epoch", "")) if "offset" in joined else None
    data = tuple(entry["data"] for entry in joined.get("messages", ()))
    return neutral.Subscribed(position, joined.get("recovered"), data)
