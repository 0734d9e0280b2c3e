"""How costs grow with the number of subscribers, the number of channels, and the length of history."""

from __future__ import annotations

from bench.peers.base import Peer
from bench.peers.centrifuge import HISTORY
from bench.scenarios.backend import BATCH, batch_request, flood_api, publish_in
from bench.scenarios.base import Effort, Measured, Subject, flood
from bench.scenarios.messaging import CONNECTING, SLOW_PEERS, fan_out_load

SPREAD = 10
"""Number of requests among which the channels are divided."""


class GrowthSubscribers:
    """The cost of a delivery, with one message in flight."""

    name = "growth_subscribers"

    def supports(self, peer: Peer) -> bool:
        return "fanout" in peer.capabilities and peer.name not in SLOW_PEERS

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        for subscribers in (100, 1000, 5000, 15_000):
            with fan_out_load(subject, subject.text, subscribers) as load:
                load.connect(CONNECTING)
                yield (
                    {"subscribers": subscribers},
                    flood(subject.running, load, window=1, copies=subscribers, effort=effort, deliveries=True),
                )


class GrowthChannels:
    """The cost of a publish by the number of channels with history.

    The channels have no subscribers, and all get equally many publications.
    """

    name = "growth_channels"

    def supports(self, peer: Peer) -> bool:
        return "api" in peer.capabilities and "recover" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        port, made = subject.running.port, 0
        for count in (10, 100, 1000, 10_000, 100_000):
            names = [f"log10:channel{number}" for number in range(count)]
            publish_in(subject.running, names[made:])
            made = count
            # Channels of one request are far apart in the server's table.
            spread = [names[index * count // (SPREAD * BATCH)] for index in range(SPREAD * BATCH)]
            requests = [batch_request(port, spread[start::SPREAD]) for start in range(SPREAD)]
            yield {"channels": count}, flood_api(subject.running, requests, BATCH, effort)


class GrowthHistory:
    """The cost of a publish in a channel with a full history, by its length."""

    name = "growth_history"

    def supports(self, peer: Peer) -> bool:
        return "api" in peer.capabilities and "recover" in peer.capabilities

    def measure(self, subject: Subject, effort: Effort) -> Measured:
        for length, namespace in ((10, "log10:"), (100, "log100:"), (1000, HISTORY)):
            channel = f"{namespace}long"
            publish_in(subject.running, [channel] * length)
            request = batch_request(subject.running.port, [channel] * BATCH)
            yield {"history": length}, flood_api(subject.running, [request], BATCH, effort)
