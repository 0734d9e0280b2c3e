"""A client of any protocol on a `NodeHarness`, without network and real time."""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from beaconfire.model.identity import Identity
from beaconfire.session.session import Session
from tests.conformance.sessions.neutral import Connected, Published, Received, Reply, Request, Subscribe, Subscribed
from tests.fakes.transport import RecordingTransport
from tests.unit.kit import NodeHarness


class Client(ABC):
    """One client, from its first message to the end. A driver of a protocol implements the abstract methods."""

    def __init__(self, harness: NodeHarness) -> None:
        self.harness = harness
        self.transport = RecordingTransport()
        self.pings = 0
        """Pings that the client has received and not answered."""
        self._refs = itertools.count(1)
        self._read_bytes = 0

    @property
    @abstractmethod
    def session(self) -> Session:
        """The session of the client. There may be none before connect."""

    @abstractmethod
    def send_connect(self, token: str, channels: Iterable[str] = ()) -> None:
        """`channels` are further channels to subscribe to."""

    @abstractmethod
    def encode(self, ref: int, request: Request) -> bytes:
        """One message of the transport."""

    @abstractmethod
    def decode(self, data: bytes) -> Iterable[Received]:
        """Everything in these bytes, in order. Counts pings instead of returning them."""

    @abstractmethod
    def keep_alive(self) -> None:
        """Does what the protocol expects of a living client: answers the pings, or sends one."""

    @abstractmethod
    def send_bytes(self, data: bytes) -> None:
        """Sends one message of the transport."""

    @abstractmethod
    def drop_connection(self) -> None:
        """The transport is lost, without a closing handshake."""

    @property
    def id(self) -> str:
        return self.session.client

    @property
    def disconnect_code(self) -> int:
        """0 while the server has not disconnected the client."""
        return self.transport.closed[0] if self.transport.closed is not None else 0

    def send(self, request: Request) -> int:
        """Sends a request, and returns the number that its reply has."""
        ref = next(self._refs)
        self.send_bytes(self.encode(ref, request))
        return ref

    def send_together(self, *requests: Request) -> list[int]:
        """Sends requests in one message of the transport, if the protocol can."""
        return [self.send(request) for request in requests]

    def receive(self) -> list[Received]:
        """What the client has received since the last call, after the scheduled callbacks have run."""
        self.harness.run_scheduled()
        data = b"".join(self.transport.writes)
        new, self._read_bytes = data[self._read_bytes :], len(data)
        return list(self.decode(new))

    def ask(self, request: Request) -> Reply:
        """Sends a request and returns its reply. What came with the reply is dropped."""
        ref = self.send(request)
        received = self.receive()
        replies = [message for message in received if isinstance(message, Reply) and message.ref == ref]
        assert len(replies) == 1, f"{request}: {received}, closed: {self.transport.closed}"
        return replies[0]

    def ask_code(self, request: Request) -> int:
        """Sends a request. Returns 0 for success, else the code of the error reply or of the disconnect."""
        ref = self.send(request)
        replies = [message for message in self.receive() if isinstance(message, Reply) and message.ref == ref]
        if self.disconnect_code:
            assert not replies, replies
            return self.disconnect_code
        assert len(replies) == 1, replies
        return replies[0].error

    def subscribe(self, channel: str, **request: Any) -> Subscribed:
        """Subscribes to a channel, which must succeed."""
        reply = self.ask(Subscribe(channel, **request))
        assert isinstance(reply.value, Subscribed), reply
        return reply.value

    def connect(self, token: str, channels: Iterable[str] = ()) -> Connected:
        """Connects, which must succeed."""
        self.send_connect(token, channels)
        received = self.receive()
        assert len(received) >= 1, self.transport.closed
        assert isinstance(received[0], Connected), received
        return received[0]

    def connect_code(self, token: str) -> int:
        """Connects. Returns 0 for success, else the code of the error reply or of the disconnect."""
        self.send_connect(token)
        received = self.receive()
        if self.disconnect_code:
            assert received == []
            return self.disconnect_code
        [reply] = received
        return reply.error if isinstance(reply, Reply) else 0

    def publications(self) -> list[object]:
        """The data of the publications that the client has received since the last call. There is nothing else."""
        return published(self.receive())


def published(messages: Iterable[Received]) -> list[object]:
    found = []
    for message in messages:
        assert isinstance(message, Published), message
        found.append(message.data)
    return found


def to_json(data: object) -> bytes:
    return json.dumps(data).encode()


def from_json(data: bytes) -> object:
    return json.loads(data) if data else None


def give_token(harness: NodeHarness, user: str, **identity: Any) -> str:
    """A token of the user. `identity` are more fields of its `Identity`."""
    token = user or "anonymous"
    harness.tokens.connections.known[token] = Identity(user=user, **identity)
    return token
