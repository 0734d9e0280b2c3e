"""How costs grow: with subscribers, with channels, with the length of history."""

from __future__ import annotations

from bench.peers.base import Peer
from bench.peers.centrifuge import HISTORY
from bench.scenarios.backend import BATCH, batch_request, flood_api, publish_in
from bench.scenarios.base import Effort, Measured, Subject, flood
from bench.scenarios.chatter import CONNECTING, abilities, audience

SPREAD = 10
"""Requests over which publishes are spread, each in channels of its own."""


class GrowthSubscribers:
    """What a delivery costs, one message in flight."""

    name = "growth_subscribers"

    def suits(self, peer: Peer) -> bool:
        return "fanout" in peer.capabilities and "many" in abilities(peer)

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        for subscribers in (100, 1000, 5000, 15_000):
            with audience(subject, subject.text, subscribers) as load:
                load.connect(CONNECTING)
                yield (
                    {"subscribers": subscribers},
                    flood(subject.running, load, window=1, copies=subscribers, effort=effort, deliveries=True),
                )


class GrowthChannels:
    """What a publish costs while so many channels keep history; nobody listens, and every channel gets its share."""

    name = "growth_channels"

    def suits(self, peer: Peer) -> bool:
        return "api" in peer.capabilities and "recover" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        port, made = subject.running.port, 0
        for count in (10, 100, 1000, 10_000, 100_000):
            names = [f"log10:channel{number}" for number in range(count)]
            publish_in(subject.running, names[made:])
            made = count
            # Neighbours in a request lie far apart in the table.
            spread = [names[index * count // (SPREAD * BATCH)] for index in range(SPREAD * BATCH)]
            requests = [batch_request(port, spread[start::SPREAD]) for start in range(SPREAD)]
            yield {"channels": count}, flood_api(subject.running, requests, BATCH, effort)


class GrowthHistory:
    """What a publish costs in a channel whose history is full at so many."""

    name = "growth_history"

    def suits(self, peer: Peer) -> bool:
        return "api" in peer.capabilities and "recover" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        for length, namespace in ((10, "log10:"), (100, "log100:"), (1000, HISTORY)):
            channel = f"{namespace}long"
            publish_in(subject.running, [channel] * length)
            request = batch_request(subject.running.port, [channel] * BATCH)
            yield {"history": length}, flood_api(subject.running, [request], BATCH, effort)
