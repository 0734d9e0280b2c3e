"""Backends that publish through any worker, and repeat a publish whose outcome they do not know."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from msgspec import Raw

from beaconfire.base.errors import EngineUnavailable, OutOfSequence
from beaconfire.engines.port import PublishOutcome
from tests.simulation.broken_guarantee import BrokenGuarantee
from tests.simulation.broker import CHANNELS
from tests.simulation.steps import WaitingSteps
from tests.simulation.workers.processes import WorkerNode
from tests.simulation.workers.streams import HubStreams
from tests.unit.patching import chained_text


class Backends:
    """`choose` returns a worker that runs, or None."""

    def __init__(self, rng: random.Random, choose: Callable[[], WorkerNode | None], streams: HubStreams) -> None:
        self._rng = rng
        self._choose = choose
        self._streams = streams
        self.repeating = WaitingSteps(rng)
        self.repeated = 0
        self.acknowledged = 0
        self._busy: set[str] = set()
        """Channels in which the producer waits for an answer. It sends its numbers one after the other."""
        self._next = dict.fromkeys(CHANNELS, (1, 1))
        """The number of the producer of each channel, and the number that it sends next."""

    async def publish(self, channel: str, number: int) -> None:
        """Publishes once, whatever happens."""
        if channel in self._busy or self._rng.random() < 0.5:
            await self._repeat(channel, number, {"idempotency_key": f"key{number}"})
            return
        self._busy.add(channel)
        try:
            producer, seq = self._next[channel]
            await self._repeat(channel, number, {"producer": f"producer{producer}", "seq": seq})
            self._next[channel] = (producer, seq + 1)
        except OutOfSequence:
            if channel not in self._streams.streams_lost:
                raise
            self._next[channel] = (self._next[channel][0] + 1, 1)  # the engine has forgotten the producer
        finally:
            self._busy.discard(channel)

    async def _repeat(self, channel: str, number: int, identity: dict[str, Any]) -> None:
        data = Raw(json.dumps(chained_text(number)).encode())
        tags = {"kind": self._rng.choice(("unwanted", "wanted", "other"))}
        options: dict[str, Any] = {
            "delta": self._rng.random() < 0.8,
            "exclude": self._rng.choice(((), ("nobody",))),
        }
        while True:
            worker = self._choose()
            if worker is not None:
                namespace = worker.namespaces.resolve(channel)
                try:
                    outcome = await worker.node.channels.publish(
                        channel, namespace, data, tags=tags, **identity, **options
                    )
                except EngineUnavailable:
                    self.repeated += 1
                else:
                    self._check(channel, data, outcome)
                    return
            await self.repeating.wait()

    def _check(self, channel: str, data: Raw, outcome: PublishOutcome) -> None:
        self.acknowledged += 1
        offset, epoch = outcome.position
        stored = self._streams.published.get((channel, epoch, offset))
        if stored is None or bytes(stored.data) != bytes(data):
            raise BrokenGuarantee(f"{channel}: acknowledged {bytes(data)!r} at {outcome}, stored: {stored}")
