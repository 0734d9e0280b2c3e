"""The protocols that the suite tests, and which features each has."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final, NamedTuple

import pytest

from beaconfire.channels.options import ChannelOptions
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.protocols.centrifuge.client_json import ClientJsonCodec
from beaconfire.protocols.centrifuge.client_protobuf import ClientProtobufCodec
from beaconfire.protocols.centrifuge.connection import CentrifugeConnection
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec
from beaconfire.protocols.centrifuge.unidirectional_codec import UnidirectionalCodec
from beaconfire.protocols.centrifuge.unidirectional_connection import UnidirectionalConnection
from beaconfire.protocols.plain.codec import PlainCodec
from beaconfire.protocols.plain.connection import PlainConnection
from beaconfire.transports.streams.wires import lines, varint_delimited
from beaconfire.transports.traits import Pings, SessionTraits
from tests.conformance.sessions.centrifuge_client import CentrifugeClient, UnidirectionalClient
from tests.conformance.sessions.client import Client, give_token
from tests.conformance.sessions.neutral import Connected
from tests.conformance.sessions.parcel.connection import ParcelConnection
from tests.conformance.sessions.parcel.delivery import ParcelCodec
from tests.conformance.sessions.parcel.endpoint import TRAITS, ParcelEndpoint
from tests.conformance.sessions.parcel_client import ParcelClient
from tests.conformance.sessions.plain_client import PlainClient
from tests.unit.kit import OPEN, NodeHarness, settle


class Feature(Enum):
    """What not every protocol has."""

    COMMANDS = auto()
    """The client sends commands after its connect, and gets replies."""
    CALLS = auto()
    """The client calls methods of the application."""
    CHANNELS_OF_CONNECT = auto()
    """The client may name channels when it connects."""
    SEVERAL_PER_MESSAGE = auto()
    """A message of the transport may hold several commands."""
    DEAD_PEERS = auto()
    """The server finds out that the client is dead."""
    GARBAGE_IS_FATAL = auto()
    """Bytes that are no message end the session."""
    MOVES = auto()
    """A session may move to another transport."""


Open = Callable[[], Client]


class ProtocolUnderTest(NamedTuple):
    """`start` returns the function that opens a connection to a node."""

    name: str
    start: Callable[[NodeHarness], Open]
    features: frozenset[Feature]


class Bench:
    """A node, and clients of one protocol."""

    def __init__(self, protocol: ProtocolUnderTest, channel: ChannelOptions = OPEN, **options: Any) -> None:
        """`options` are those of `NodeHarness`."""
        self.protocol = protocol
        self.harness = NodeHarness(channel, **options)
        self.open = protocol.start(self.harness)

    def connect(self, user: str = "ann", *channels: str, **identity: Any) -> Client:
        """A client that is subscribed to these channels, and has received everything so far.

        Protocols without commands subscribe when they connect. `identity` are more fields of the token's `Identity`.
        """
        client = self.open()
        if Feature.COMMANDS in self.protocol.features:
            client.connect(give_token(self.harness, user, **identity))
            for channel in channels:
                client.subscribe(channel)
        else:
            grants = {channel: SubscriptionGrant() for channel in channels}
            client.connect(give_token(self.harness, user, **{"channels": grants, **identity}))
        client.receive()
        return client

    async def connect_slowly(self, user: str = "ann") -> Client:
        """Like `connect`, on a node where connecting may suspend."""
        client = self.open()
        client.send_connect(give_token(self.harness, user))
        await settle()
        [connected] = client.receive()
        assert isinstance(connected, Connected)
        return client


def _centrifuge(codec: Any, wire_of: Any, client_codec: Any) -> Callable[[NodeHarness], Open]:
    def start(harness: NodeHarness) -> Open:
        operations, wire = harness.node.operations, wire_of(codec)
        sessions = harness.node.sessions(
            SessionTraits(), lambda session: CentrifugeConnection(session, operations, codec), harness._new_id
        )
        return lambda: CentrifugeClient(harness, sessions, wire, client_codec)

    return start


def _unidirectional(harness: NodeHarness) -> Open:
    operations, codec = harness.node.operations, UnidirectionalCodec()
    wire = lines(codec)
    sessions = harness.node.sessions(
        SessionTraits(Pings.UNANSWERED),
        lambda session: UnidirectionalConnection(session, operations, codec),
        harness._new_id,
    )
    return lambda: UnidirectionalClient(harness, sessions, wire)


def _plain(harness: NodeHarness) -> Open:
    operations, wire = harness.node.operations, lines(PlainCodec(None))
    sessions = harness.node.sessions(
        SessionTraits(Pings.TRANSPORT, connect_is_final=False),
        lambda session: PlainConnection(session, operations, None),
        harness._new_id,
    )
    return lambda: PlainClient(harness, sessions, wire)


def start_parcel(harness: NodeHarness, traits: SessionTraits = TRAITS) -> ParcelEndpoint:
    """The endpoint of the test-only protocol on a node."""
    operations, codec = harness.node.operations, ParcelCodec()
    sessions = harness.node.sessions(traits, lambda session: ParcelConnection(session, operations), harness._new_id)
    return ParcelEndpoint(sessions, lambda: varint_delimited(codec), traits)


def _parcel(harness: NodeHarness) -> Open:
    endpoint, numbers = start_parcel(harness), itertools.count(1)
    return lambda: ParcelClient(harness, endpoint, f"parcel{next(numbers)}")


_F = Feature
_BIDIRECTIONAL: Final = frozenset(
    {
        _F.COMMANDS,
        _F.CALLS,
        _F.CHANNELS_OF_CONNECT,
        _F.SEVERAL_PER_MESSAGE,
        _F.DEAD_PEERS,
        _F.GARBAGE_IS_FATAL,
    }
)

PROTOCOLS: Final = (
    ProtocolUnderTest("centrifuge-json", _centrifuge(JsonCodec(), lines, ClientJsonCodec()), _BIDIRECTIONAL),
    ProtocolUnderTest(
        "centrifuge-protobuf", _centrifuge(ProtobufCodec(), varint_delimited, ClientProtobufCodec()), _BIDIRECTIONAL
    ),
    ProtocolUnderTest("unidirectional", _unidirectional, frozenset({_F.CHANNELS_OF_CONNECT, _F.GARBAGE_IS_FATAL})),
    ProtocolUnderTest("plain", _plain, frozenset({_F.COMMANDS, _F.DEAD_PEERS})),
    ProtocolUnderTest("parcel", _parcel, _BIDIRECTIONAL | {_F.MOVES}),
)


def with_features(*features: Feature) -> pytest.MarkDecorator:
    """Runs a test for each protocol that has these features. The test gets the argument `protocol`."""
    able = [protocol for protocol in PROTOCOLS if protocol.features.issuperset(features)]
    return pytest.mark.parametrize("protocol", able, ids=[protocol.name for protocol in able])
