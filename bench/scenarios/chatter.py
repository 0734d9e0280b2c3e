"""Messages between clients: to many in one channel, in many small rooms, and one to one."""

from __future__ import annotations

from bench.load import Connection, Load
from bench.peers.base import Dialect, Peer
from bench.scenarios.base import DATA, Effort, Measured, Subject, Variant, flood

CHANNEL = "bench"
CONNECTING = 64
"""Connections that are opened at a time where connecting is not what is measured."""

C_LOOP_ENVELOPE = "x" * 106
"""What a JSON push of Beaconfire and Centrifugo has around the data; the C loop's messages are as long."""


class FanOut:
    """One publisher, who is no subscriber, and many subscribers of one channel."""

    name = "fanout"

    def suits(self, peer: Peer) -> bool:
        return "fanout" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        for codec, dialect in subject.peer.dialects.items():
            if effort.quick and dialect is not subject.text:
                continue
            sizes = (1000,) if effort.quick or codec == "protobuf" else (1, 100, 1000, 10000)
            windows = (1, 64) if effort.quick or codec == "protobuf" else (1, 8, 64)
            for subscribers in sizes:
                if subscribers > 1000 and "many" not in abilities(subject.peer):
                    continue
                with audience(subject, dialect, subscribers) as load:
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


def abilities(peer: Peer) -> frozenset[str]:
    """`many`: it can fan out to 10,000 within the time there is."""
    slow = {"python-socketio", "channels", "websockets"}
    return frozenset() if peer.name in slow else frozenset({"many"})


def audience(subject: Subject, dialect: Dialect, subscribers: int) -> Load:
    """Many who listen, and one who speaks and does not."""
    data = DATA + C_LOOP_ENVELOPE if subject.peer.name == "c-loop" else DATA
    listeners = [
        Connection(0, None, dialect.greetings(f"user{number}", [CHANNEL]), dialect.binary)
        for number in range(subscribers)
    ]
    speaker = Connection(0, dialect.publish(CHANNEL, data), dialect.greetings("speaker", []), dialect.binary)
    return Load(subject.running.port, dialect.path, [*listeners, speaker], dialect.unprompted)


def crowd(subject: Subject, dialect: Dialect, rooms: int, members: int) -> Load:
    """Rooms in which everybody talks and listens; each is a group."""
    connections = [
        Connection(
            room,
            dialect.publish(f"room{room}", DATA),
            dialect.greetings(f"user{room * members + member}", [f"room{room}"]),
            dialect.binary,
        )
        for room in range(rooms)
        for member in range(members)
    ]
    return Load(subject.running.port, dialect.path, connections, dialect.unprompted, dialect.ack)


def hearers(dialect: Dialect, members: int) -> int:
    """How many of a room's members hear what one of them says."""
    return members if dialect.echo else members - 1


class Rooms:
    """Many small rooms, one message on its way in each, everybody talks in turn."""

    name = "rooms"

    def suits(self, peer: Peer) -> bool:
        return "rooms" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        rooms, members, dialect = 100 if effort.quick else 1000, 10, subject.text
        with crowd(subject, dialect, rooms, members) as load:
            load.connect(CONNECTING)
            yield (
                {"rooms": rooms, "members": members},
                flood(
                    subject.running,
                    load,
                    window=1,
                    copies=hearers(dialect, members),
                    groups=rooms,
                    effort=effort,
                ),
            )


class OneToOne:
    """Pairs who write to each other; a message is done when it has been heard and acknowledged."""

    name = "one_to_one"

    def suits(self, peer: Peer) -> bool:
        return "acks" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        pairs, dialect = 50 if effort.quick else 500, subject.text
        with crowd(subject, dialect, pairs, 2) as load:
            load.connect(CONNECTING)
            yield (
                {"pairs": pairs},
                flood(
                    subject.running,
                    load,
                    window=1,
                    copies=hearers(dialect, 2),
                    groups=pairs,
                    acks=True,
                    effort=effort,
                ),
            )
