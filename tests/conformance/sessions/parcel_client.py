"""A client of the test-only protocol, which acknowledges messages and moves between transports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Raw

from beaconfire.model.position import StreamPosition
from beaconfire.session.session import Session
from tests.conformance.sessions import neutral
from tests.conformance.sessions.client import Client, from_json, to_json
from tests.conformance.sessions.neutral import Received, Request
from tests.conformance.sessions.parcel.connection import Args
from tests.conformance.sessions.parcel.endpoint import ParcelEndpoint
from tests.conformance.sessions.parcel.messages import (
    Ack,
    ClientMessage,
    Emit,
    Hello,
    MessageBuffer,
    Ping,
    encode,
    framed,
)
from tests.fakes.transport import HANDSHAKE, RecordingTransport
from tests.unit.kit import NodeHarness


class ParcelClient(Client):
    """`acknowledges` tells whether the client acknowledges what it receives."""

    def __init__(self, harness: NodeHarness, endpoint: ParcelEndpoint, client: str, secret: str = "s") -> None:
        super().__init__(harness)
        self._endpoint = endpoint
        self._id = client
        self.secret = secret
        self._token = ""
        self.acknowledges = True
        self.last = 0
        """The number of the last message that the client has received."""
        self.duplicates = 0
        """Messages that the client has received more than once."""
        self.resumed: list[int] = []
        """The numbers of the last event that the server had when the session moved."""
        self.bye = 0
        """The code in the last message of the session. 0 while the session lives."""
        self._buffer = MessageBuffer()
        self.receiver = endpoint.open(self.transport, HANDSHAKE)

    @property
    def session(self) -> Session:
        session = self.harness.node.registry.by_client(self._id)
        assert session is not None, "the client is connected"
        return session

    @property
    def id(self) -> str:
        return self._id

    def send_bytes(self, data: bytes) -> None:
        self.receiver.on_data(data, True)

    def send_message(self, *messages: ClientMessage) -> None:
        """Sends messages in one message of the transport."""
        self.send_bytes(b"".join(framed(encode(message)) for message in messages))

    def drop_connection(self) -> None:
        self.receiver.on_closed()

    def send_connect(self, token: str, channels: Iterable[str] = ()) -> None:
        self._token = token
        self.send_message(Hello(self._id, self.secret, token, channels=list(channels)))

    def move(self, acked: int | None = None, secret: str = "") -> RecordingTransport:
        """Opens another transport for the session, and returns the old one.

        `acked` replaces the number of the last message. `secret` is the secret of the transport.
        """
        old, self.transport = self.transport, RecordingTransport()
        self.transport.secret = secret
        self._read_bytes = 0
        self._buffer = MessageBuffer()
        self.receiver = self._endpoint.open(self.transport, HANDSHAKE)
        self.send_message(Hello(self._id, self.secret, self._token, self.last if acked is None else acked))
        return old

    def send_together(self, *requests: Request) -> list[int]:
        refs = [next(self._refs) for _ in requests]
        self.send_bytes(b"".join(self.encode(ref, request) for ref, request in zip(refs, requests, strict=True)))
        return refs

    def encode(self, ref: int, request: Request) -> bytes:
        event, args = _event(request)
        return framed(encode(Emit(ref, event, Raw(encode(args)))))

    def keep_alive(self) -> None:
        self.send_message(Ping())

    def decode(self, data: bytes) -> Iterator[Received]:
        before = self.last
        for encoded in self._buffer.split(data):
            message = msgspec.msgpack.decode(encoded)
            number, body = message["n"], message["body"]
            if number <= self.last:
                self.duplicates += 1
                continue
            assert number == self.last + 1, f"message {number} came after {self.last}"
            self.last = number
            if "resumed" in body:
                self.resumed.append(body["resumed"]["event"])
            elif "bye" in body:
                self.bye = body["bye"]
            elif "pong" not in body:
                yield _received(self._id, body)
        if self.acknowledges and self.last > before and not self.disconnect_code:
            self.send_message(Ack(self.last))


def _event(request: Request) -> tuple[str, Args]:
    match request:
        case neutral.Subscribe(channel, since, token):
            return "subscribe", Args(channel, token, since=since, recoverable=True)
        case neutral.Unsubscribe(channel):
            return "unsubscribe", Args(channel)
        case neutral.Publish(channel, data):
            return "publish", Args(channel, data=to_json(data))
        case neutral.History(channel, limit, since):
            return "history", Args(channel, limit=limit, since=since)
        case neutral.Presence(channel):
            return "presence", Args(channel)
        case neutral.Rpc(method, data):
            return "rpc", Args(method=method, data=to_json(data) if data is not None else b"")
        case neutral.Refresh(token):
            return "refresh", Args(token=token)
        case neutral.SubRefresh(channel, token):
            return "sub_refresh", Args(channel, token)


def _received(client: str, body: dict[str, Any]) -> Received:
    match body:
        case {"welcome": {"id": welcomed, "subs": subscriptions}}:
            assert welcomed == client
            started = {channel: _subscribed(start) for channel, start in subscriptions.items()}
            return neutral.Connected(client, started)
        case {"ack": ref, "error": code}:
            return neutral.Reply(ref, code)
        case {"ack": ref, "result": result}:
            return neutral.Reply(ref, value=_value(result))
        case {"event": "PublicationPush", "args": {"channel": channel, "pub": publication}}:
            return neutral.Published(channel, from_json(publication["data"]), publication["offset"])
        case {"event": "JoinPush", "args": {"channel": channel, "info": info}}:
            return neutral.Joined(channel, info["client"])
        case {"event": "LeavePush", "args": {"channel": channel, "info": info}}:
            return neutral.Left(channel, info["client"])
        case {"event": "UnsubscribePush", "args": {"channel": channel, "code": code}}:
            return neutral.Ended(channel, code)
        case {"event": "SubscribePush", "args": {"channel": channel}}:
            return neutral.Started(channel)
        case {"event": "RefreshPush", "args": {"ttl": ttl_s}}:
            return neutral.Expires(ttl_s)
        case _:
            raise AssertionError(f"unexpected: {body}")


def _value(result: dict[str, Any]) -> object:
    match result:
        case {"recovered": _}:
            return _subscribed(result)
        case {"publications": publications}:
            return _data(publications)
        case {"clients": clients}:
            return set(clients)
        case {"data": data}:
            return from_json(data)
        case {"ttl": ttl_s}:
            return ttl_s
        case _:
            return None


def _subscribed(start: dict[str, Any]) -> neutral.Subscribed:
    position = StreamPosition(*start["position"]) if start["position"] is not None else None
    publications = start["publications"]
    if publications and position is not None:
        position = StreamPosition(publications[-1]["offset"], position.epoch)
    return neutral.Subscribed(position, start["recovered"], _data(publications))


def _data(publications: Iterable[dict[str, Any]]) -> tuple[object, ...]:
    return tuple(from_json(publication["data"]) for publication in publications)
