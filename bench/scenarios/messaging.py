"""Messages between clients: to many subscribers of one channel, in many small rooms, and one to one."""

from __future__ import annotations

from bench.load import Connection, Load
from bench.peers.base import Peer, PeerProtocol
from bench.scenarios.base import DATA, Effort, Measured, Subject, Variant, flood

CHANNEL = "bench"
CONNECTING = 64
"""Connections that are opened at the same time in scenarios that do not measure connecting."""

C_LOOP_ENVELOPE = "x" * 106
"""As long as what a JSON push of Beaconfire and Centrifugo contains besides the data, so that the C loop's messages
have the same length."""

SLOW_PEERS = frozenset({"python-socketio", "channels", "websockets"})
"""Fan-out to 10,000 subscribers would take these peers too long."""


class FanOut:
    """One publisher, which is not a subscriber, and many subscribers of one channel."""

    name = "fanout"

    def supports(self, peer: Peer) -> bool:
        return "fanout" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        for codec, protocol in subject.peer.protocols.items():
            if effort.quick and protocol is not subject.text:
                continue
            sizes = (1000,) if effort.quick or codec == "protobuf" else (1, 100, 1000, 10000)
            windows = (1, 64) if effort.quick or codec == "protobuf" else (1, 8, 64)
            for subscribers in sizes:
                if subscribers > 1000 and subject.peer.name in SLOW_PEERS:
                    continue
                with fan_out_load(subject, protocol, subscribers) as load:
                    load.connect(CONNECTING)
                    for window in windows:
                        variant: Variant = {"subscribers": subscribers, "in_flight": window, "codec": codec}
                        yield (
                            variant,
                            flood(
                                subject.running,
                                load,
                                window=window,
                                copies=subscribers,
                                effort=effort,
                                deliveries=True,
                            ),
                        )


def fan_out_load(subject: Subject, protocol: PeerProtocol, subscribers: int) -> Load:
    """Subscribers of one channel, and one publisher that is not subscribed."""
    data = DATA + C_LOOP_ENVELOPE if subject.peer.name == "c-loop" else DATA
    connections = [
        Connection(0, None, protocol.setup_messages(f"user{number}", [CHANNEL]), protocol.binary)
        for number in range(subscribers)
    ]
    publisher = Connection(
        0, protocol.publish(CHANNEL, data), protocol.setup_messages("publisher", []), protocol.binary
    )
    return Load(subject.running.port, protocol.path, [*connections, publisher], protocol.initial_messages)


def rooms_load(subject: Subject, protocol: PeerProtocol, rooms: int, members: int) -> Load:
    """Rooms in which every member publishes and is subscribed. Each room is a group of the load program."""
    connections = [
        Connection(
            room,
            protocol.publish(f"room{room}", DATA),
            protocol.setup_messages(f"user{room * members + member}", [f"room{room}"]),
            protocol.binary,
        )
        for room in range(rooms)
        for member in range(members)
    ]
    return Load(subject.running.port, protocol.path, connections, protocol.initial_messages, protocol.ack)


def copies_per_message(protocol: PeerProtocol, members: int) -> int:
    """How many members of a room receive a message of one member."""
    return members if protocol.echo else members - 1


class Rooms:
    """Many small rooms with one message in flight in each. All members publish in turn."""

    name = "rooms"

    def supports(self, peer: Peer) -> bool:
        return "rooms" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        rooms, members, protocol = 100 if effort.quick else 1000, 10, subject.text
        with rooms_load(subject, protocol, rooms, members) as load:
            load.connect(CONNECTING)
            yield (
                {"rooms": rooms, "members": members},
                flood(
                    subject.running,
                    load,
                    window=1,
                    copies=copies_per_message(protocol, members),
                    groups=rooms,
                    effort=effort,
                ),
            )


class OneToOne:
    """Pairs of clients. A message is complete when it was delivered and acknowledged."""

    name = "one_to_one"

    def supports(self, peer: Peer) -> bool:
        return "acks" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        pairs, protocol = 50 if effort.quick else 500, subject.text
        with rooms_load(subject, protocol, pairs, 2) as load:
            load.connect(CONNECTING)
            yield (
                {"pairs": pairs},
                flood(
                    subject.running,
                    load,
                    window=1,
                    copies=copies_per_message(protocol, 2),
                    groups=pairs,
                    acks=True,
                    effort=effort,
                ),
            )
