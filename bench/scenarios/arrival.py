"""Clients that come: connecting steadily and in storms, recovering what they missed, and what they weigh when idle."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.load import Connection, Load
from bench.peers.base import Dialect, Peer
from bench.peers.centrifuge import DIALECTS, HISTORY, position
from bench.scenarios.backend import ask, publish_in
from bench.scenarios.base import Effort, Measured, Subject, metrics
from bench.scenarios.chatter import CONNECTING

ROOMS = 100
"""Channels over which clients are spread."""

SETTLE_S = 1.0
"""How long connections are left alone before they are weighed."""


def guests(dialect: Dialect, count: int, first: int = 0) -> list[Connection]:
    """Each another user, in one channel, with a token where the peer has such."""
    return [
        Connection(0, None, dialect.greetings(f"user{number}", [f"room{number % ROOMS}"]), dialect.binary)
        for number in range(first, first + count)
    ]


def doorway(subject: Subject, dialect: Dialect, connections: Sequence[Connection]) -> Load:
    return Load(subject.running.port, dialect.path, connections, dialect.unprompted)


class Connect:
    """Connect, verify the token, subscribe: a few at a time, and all at once."""

    name = "connect"

    def suits(self, peer: Peer) -> bool:
        return "rooms" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        kinds = [("steady", 500 if effort.quick else 2000, 16)]
        if "auth" in subject.peer.capabilities and not effort.quick:
            kinds.append(("storm", 10_000, 0))
        dialect = subject.text
        with doorway(subject, dialect, guests(dialect, 200)) as load:
            load.connect(16)  # the first ones pay for what is made once
        for kind, count, concurrency in kinds:
            with doorway(subject, dialect, guests(dialect, count)) as load:
                before_s = subject.running.cpu_s()
                outcome = load.connect(concurrency)
                cpu_s = subject.running.cpu_s() - before_s
            yield {"kind": kind, "connections": count}, metrics(outcome, cpu_s, count)


class Recover:
    """Clients who missed a hundred messages of one channel each come back and get them."""

    name = "recover"

    def suits(self, peer: Peer) -> bool:
        return "recover" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        clients, missed, channel = 100 if effort.quick else 1000, 100, f"{HISTORY}missed"
        publish_in(subject.running, [channel])
        since = position(ask(subject.running, "history", {"channel": channel, "limit": 0}))
        publish_in(subject.running, [channel] * missed)
        for codec, dialect in DIALECTS.items():
            connections = [
                Connection(0, None, dialect.recover_greetings(f"user{number}", channel, since), dialect.binary)
                for number in range(clients)
            ]
            with doorway(subject, dialect, connections) as load:
                before_s = subject.running.cpu_s()
                outcome = load.connect(CONNECTING, marks=missed)
                cpu_s = subject.running.cpu_s() - before_s
            yield (
                {"clients": clients, "missed": missed, "codec": codec},
                metrics(outcome, cpu_s, clients * missed),
            )


class Memory:
    """What an idle connection weighs."""

    name = "memory"

    def suits(self, peer: Peer) -> bool:
        return "rooms" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        count = 1000 if effort.quick else 5000
        yield {"connections": count}, {"bytes": weigh(subject, count)}


class GrowthConnections:
    """What an idle connection weighs among more of them."""

    name = "growth_connections"

    def suits(self, peer: Peer) -> bool:
        return "auth" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        for count in (1000, 5000, 15_000):
            yield {"connections": count}, {"bytes": weigh(subject, count)}


def weigh(subject: Subject, count: int) -> float:
    """Resident bytes of each of so many idle connections, beyond those of the first 200 and of what went before."""
    dialect = subject.text
    with doorway(subject, dialect, guests(dialect, 200)) as early:
        early.connect(CONNECTING)
        time.sleep(SETTLE_S)
        before = subject.running.resident_bytes()
        with doorway(subject, dialect, guests(dialect, count, 1000)) as load:
            load.connect(CONNECTING)
            time.sleep(SETTLE_S)
            return (subject.running.resident_bytes() - before) / count
