"""Connecting at a steady rate and all at once, recovering missed messages, and the memory of idle connections."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.load import Connection, Load
from bench.peers.base import Peer, PeerProtocol
from bench.peers.centrifuge import HISTORY, PROTOCOLS, read_position
from bench.scenarios.backend import call_api, publish_in
from bench.scenarios.base import Effort, Measured, Subject, metrics
from bench.scenarios.messaging import CONNECTING

ROOMS = 100
"""The number of channels among which clients are divided."""

SETTLE_S = 1.0
"""Time between opening connections and measuring their memory."""


def make_clients(protocol: PeerProtocol, count: int, first: int = 0) -> list[Connection]:
    """Connections of different users, each in one channel, with a token if the peer uses tokens."""
    return [
        Connection(0, None, protocol.setup_messages(f"user{number}", [f"room{number % ROOMS}"]), protocol.binary)
        for number in range(first, first + count)
    ]


def open_load(subject: Subject, protocol: PeerProtocol, connections: Sequence[Connection]) -> Load:
    return Load(subject.running.port, protocol.path, connections, protocol.initial_messages)


class Connect:
    """Connect, verify the token, subscribe: a few connections at a time, and all at once."""

    name = "connect"

    def supports(self, peer: Peer) -> bool:
        return "rooms" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        kinds = [("steady", 500 if effort.quick else 2000, 16)]
        if "auth" in subject.peer.capabilities and not effort.quick:
            kinds.append(("storm", 10_000, 0))
        protocol = subject.text
        with open_load(subject, protocol, make_clients(protocol, 200)) as load:
            load.connect(16)  # a warm-up: the first connections pay for what is created once
        for kind, count, concurrency in kinds:
            with open_load(subject, protocol, make_clients(protocol, count)) as load:
                before_s = subject.running.cpu_s()
                outcome = load.connect(concurrency)
                cpu_s = subject.running.cpu_s() - before_s
            yield {"kind": kind, "connections": count}, metrics(outcome, cpu_s, count)


class Recover:
    """Clients that missed a hundred messages of one channel each reconnect and receive them."""

    name = "recover"

    def supports(self, peer: Peer) -> bool:
        return "recover" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        clients, missed, channel = 100 if effort.quick else 1000, 100, f"{HISTORY}missed"
        publish_in(subject.running, [channel])
        since = read_position(call_api(subject.running, "history", {"channel": channel, "limit": 0}))
        publish_in(subject.running, [channel] * missed)
        for codec, protocol in PROTOCOLS.items():
            connections = [
                Connection(0, None, protocol.recovery_messages(f"user{number}", channel, since), protocol.binary)
                for number in range(clients)
            ]
            with open_load(subject, protocol, connections) as load:
                before_s = subject.running.cpu_s()
                outcome = load.connect(CONNECTING, marks=missed)
                cpu_s = subject.running.cpu_s() - before_s
            yield (
                {"clients": clients, "missed": missed, "codec": codec},
                metrics(outcome, cpu_s, clients * missed),
            )


class Memory:
    """The memory of an idle connection."""

    name = "memory"

    def supports(self, peer: Peer) -> bool:
        return "rooms" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        count = 1000 if effort.quick else 5000
        yield {"connections": count}, {"bytes": measure_memory(subject, count)}


class GrowthConnections:
    """The memory of an idle connection by the number of connections."""

    name = "growth_connections"

    def supports(self, peer: Peer) -> bool:
        return "auth" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        for count in (1000, 5000, 15_000):
            yield {"connections": count}, {"bytes": measure_memory(subject, count)}


def measure_memory(subject: Subject, count: int) -> float:
    """Resident bytes per idle connection, for `count` connections. The memory with the first 200 is subtracted."""
    protocol = subject.text
    with open_load(subject, protocol, make_clients(protocol, 200)) as first:
        first.connect(CONNECTING)
        time.sleep(SETTLE_S)
        before = subject.running.resident_bytes()
        with open_load(subject, protocol, make_clients(protocol, count, 1000)) as load:
            load.connect(CONNECTING)
            time.sleep(SETTLE_S)
            return (subject.running.resident_bytes() - before) / count
