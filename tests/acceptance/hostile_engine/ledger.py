"""What the engine has really stored: the truth that clients compare with what they receive."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Raw, structs

from beaconfire.engines.port import PublishOptions, PublishOutcome
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo
from beaconfire.testing.shared import SharedBroker, SharedEngine


class Ledger:
    """The data of every stored publication by channel: the publication with offset n is at index n - 1."""

    def __init__(self) -> None:
        self.stored: dict[str, list[bytes]] = {}
        self.epochs: dict[str, str] = {}

    def record(self, channel: str, data: bytes, outcome: PublishOutcome) -> None:
        if outcome.suppressed:
            return
        stored = self.stored.setdefault(channel, [])
        stored.append(data)
        position = outcome.position
        assert position == StreamPosition(len(stored), self.epochs.setdefault(channel, position.epoch)), position

    def top(self, channel: str) -> int:
        return len(self.stored.get(channel, ()))

    def all(self) -> list[bytes]:
        return [data for stored in self.stored.values() for data in stored]


class RecordedBroker(SharedBroker):
    """Records each publication at the moment at which it is stored, whatever the caller is told afterwards."""

    ledger: Ledger

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        outcome = await super().publish(channel, data, options, info, tags)
        self.ledger.record(channel, bytes(data), outcome)
        return outcome


def record(engine: SharedEngine, ledger: Ledger) -> SharedEngine:
    """The same engine, but `ledger` records what is published."""
    broker = RecordedBroker(engine.store, engine.link, engine.name)
    broker.ledger = ledger
    return structs.replace(engine, broker=broker)
