"""A memory engine with time by hand, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from msgspec import Raw

from beaconfire.clock import ManualClock
from beaconfire.engines.base import HistoryOptions, PublishOptions, PublishOutcome
from beaconfire.engines.memory import MemoryEngine, memory_engine
from beaconfire.messages import ClientInfo, Publication

T = TypeVar("T")

HISTORY = HistoryOptions(size=10, ttl_s=60.0, meta_ttl_s=600.0)
KEPT = PublishOptions(history=HISTORY)


def now(call: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends, as all of the memory engine are; AssertionError if it does."""
    try:
        call.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration does not know what it carries
    raise AssertionError("suspended")


class Node:
    """Remembers payloads as they are announced, and calls `react` for each."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.react: Callable[[str, bytes], None] = lambda channel, data: None

    def on_publication(
        self, channel: str, publication: Publication, epoch: str, exclude: Sequence[str], delta: bool = False
    ) -> None:
        data = bytes(publication.data)
        self.heard.append((channel, data))
        self.react(channel, data)

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self.heard.append((channel, b"join"))

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        self.heard.append((channel, b"leave"))

    def on_link_lost(self, channels: Sequence[str] | None) -> None:
        raise AssertionError("there is no link")


class World:
    """Engine, clock and node, started."""

    def __init__(self, idempotency_keys_max: int = 1000) -> None:
        self.clock = ManualClock()
        self.engine: MemoryEngine = memory_engine(self.clock, idempotency_keys_max=idempotency_keys_max)
        self.broker = self.engine.broker
        self.presence = self.engine.presence
        self.node = Node()
        now(self.broker.start(self.node))

    def publish(self, channel: str, data: bytes = b"{}", options: PublishOptions = KEPT) -> PublishOutcome:
        return now(self.broker.publish(channel, Raw(data), options))

    def offsets(self, channel: str) -> list[int]:
        return [publication.offset for publication in now(self.broker.history(channel, HISTORY, -1)).publications]

    def sweep_all(self) -> int:
        """Sweeps until nothing is left to sweep; returns how many times."""
        sweeps = 1
        while self.engine.sweep():
            sweeps += 1
        return sweeps
