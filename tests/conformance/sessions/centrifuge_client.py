"""Clients of the Centrifuge protocol, in JSON and in Protobuf, and of the unidirectional protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Raw

from beaconfire.model.position import SincePosition, StreamPosition
from beaconfire.model.publication import NO_PAYLOAD, Publication
from beaconfire.model.pushes import (
    DisconnectPush,
    JoinPush,
    LeavePush,
    PublicationPush,
    RefreshPush,
    SubscribePush,
    UnsubscribePush,
)
from beaconfire.protocols.centrifuge import requests, results
from beaconfire.protocols.centrifuge.client_codec import ClientCodec, Ping, ReplyError, ServerMessage
from beaconfire.protocols.centrifuge.client_codec import Reply as CentrifugeReply
from beaconfire.protocols.centrifuge.client_json import ClientJsonCodec
from beaconfire.protocols.centrifuge.connection import CentrifugeConnection
from beaconfire.protocols.port import Wire
from beaconfire.session.factory import SessionFactory
from beaconfire.session.session import Session
from tests.conformance.sessions import neutral
from tests.conformance.sessions.client import Client, from_json, to_json
from tests.conformance.sessions.neutral import Received, Request
from tests.fakes.transport import HANDSHAKE
from tests.unit.kit import NodeHarness

CONNECT = 1_000_000
"""The id of the connect command."""


class CentrifugeClient(Client):
    def __init__(self, harness: NodeHarness, sessions: SessionFactory, wire: Wire, codec: ClientCodec) -> None:
        super().__init__(harness)
        self._codec = codec
        self._session = sessions.open_session(self.transport, wire, HANDSHAKE)
        assert isinstance(self._session.protocol, CentrifugeConnection)

    @property
    def session(self) -> Session:
        return self._session

    def send_bytes(self, data: bytes) -> None:
        self._session.on_data(data, self._codec.binary)

    def drop_connection(self) -> None:
        self._session.on_closed()

    def send_connect(self, token: str, channels: Iterable[str] = ()) -> None:
        subs = {channel: requests.SubscribeRequest() for channel in channels}
        self.send_bytes(self._codec.encode(CONNECT, requests.ConnectRequest(token=token, subs=subs)))

    def send_together(self, *requests: Request) -> list[int]:
        refs = [next(self._refs) for _ in requests]
        encoded = (self.encode(ref, request) for ref, request in zip(refs, requests, strict=True))
        self.send_bytes(self._codec.separator.join(encoded))
        return refs

    def encode(self, ref: int, request: Request) -> bytes:
        return self._codec.encode(ref, _centrifuge_request(request))

    def keep_alive(self) -> None:
        self.receive()
        for _ in range(self.pings):
            self.send_bytes(self._codec.pong)
        self.pings = 0

    def decode(self, data: bytes) -> Iterator[Received]:
        for message in self._codec.split(data):
            decoded = self._codec.decode(message)
            if isinstance(decoded, Ping):
                self.pings += 1
            else:
                yield _received(decoded)


class UnidirectionalClient(CentrifugeClient):
    """Sends one connect request, and then only receives."""

    def __init__(self, harness: NodeHarness, sessions: SessionFactory, wire: Wire) -> None:
        super().__init__(harness, sessions, wire, ClientJsonCodec())

    def send_connect(self, token: str, channels: Iterable[str] = ()) -> None:
        self.send_bytes(to_json({"token": token, "subs": {channel: {} for channel in channels}}))

    def encode(self, ref: int, request: Request) -> bytes:
        raise AssertionError("a unidirectional client sends no commands")

    def keep_alive(self) -> None:
        """Nothing is expected of the client."""

    def decode(self, data: bytes) -> Iterator[Received]:
        """The messages have no envelope. In the envelope of the bidirectional protocol, its codec reads them."""
        for line in data.splitlines():
            if line == b"{}":
                self.pings += 1
                continue
            reply = line.startswith(b'{"connect":')
            message = b'{"id":%d,%b' % (CONNECT, line[1:]) if reply else b'{"push":%b}' % line
            decoded = self._codec.decode(message)
            if not isinstance(decoded, DisconnectPush):
                yield _received(decoded)


def _centrifuge_request(request: Request) -> requests.Request:
    match request:
        case neutral.Subscribe(channel, since, token):
            offset, epoch = since or (0, "")
            return requests.SubscribeRequest(
                channel, token, recover=since is not None, epoch=epoch, offset=offset, recoverable=True
            )
        case neutral.Unsubscribe(channel):
            return requests.UnsubscribeRequest(channel)
        case neutral.Publish(channel, data):
            return requests.PublishRequest(channel, Raw(to_json(data)))
        case neutral.History(channel, limit, since):
            return requests.HistoryRequest(channel, limit, SincePosition(*since) if since is not None else None)
        case neutral.Presence(channel):
            return requests.PresenceRequest(channel)
        case neutral.Rpc(method, data):
            return requests.RPCRequest(Raw(to_json(data)) if data is not None else NO_PAYLOAD, method)
        case neutral.Refresh(token):
            return requests.RefreshRequest(token)
        case neutral.SubRefresh(channel, token):
            return requests.SubRefreshRequest(channel, token)


def _received(message: ServerMessage) -> Received:
    match message:
        case CentrifugeReply(_, results.ConnectResult() as result):
            subscriptions = {channel: _subscribed(started) for channel, started in result.subs.items()}
            return neutral.Connected(result.client, subscriptions)
        case CentrifugeReply(ref, ReplyError(code)):
            return neutral.Reply(ref, code)
        case CentrifugeReply(ref, result):
            return neutral.Reply(ref, value=_value(result))
        case PublicationPush(channel, publication):
            return neutral.Published(channel, from_json(bytes(publication.data)), publication.offset)
        case JoinPush(channel, info):
            return neutral.Joined(channel, info.client)
        case LeavePush(channel, info):
            return neutral.Left(channel, info.client)
        case UnsubscribePush(channel, code):
            return neutral.Ended(channel, code)
        case SubscribePush(channel):
            return neutral.Started(channel)
        case RefreshPush(_, ttl_s):
            return neutral.Expires(ttl_s)
        case _:
            raise AssertionError(f"unexpected: {message}")


def _value(result: Any) -> object:
    match result:
        case results.SubscribeResult():
            return _subscribed(result)
        case results.HistoryResult(publications):
            return _data(publications)
        case results.PresenceResult(presence):
            return set(presence)
        case results.RPCResult(data):
            return from_json(bytes(data))
        case results.RefreshResult() | results.SubRefreshResult():
            return result.ttl
        case _:
            return None


def _subscribed(result: results.SubscribeResult) -> neutral.Subscribed:
    offset = result.publications[-1].offset if result.publications else result.offset
    position = StreamPosition(offset, result.epoch) if result.positioned else None
    recovered = result.recovered if result.was_recovering else None
    return neutral.Subscribed(position, recovered, _data(result.publications))


def _data(publications: Iterable[Publication]) -> tuple[object, ...]:
    return tuple(from_json(bytes(publication.data)) for publication in publications)
