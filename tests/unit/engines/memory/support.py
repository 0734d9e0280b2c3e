"""A memory engine on a manual clock, for the tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.engines.memory import MemoryEngine, memory_engine
from beaconfire.engines.memory.retained import PUBLICATION_BYTES
from beaconfire.engines.memory.streams import POSITION_BYTES
from beaconfire.engines.port import HistoryOptions, PublishOptions, PublishOutcome
from beaconfire.model.publication import ClientInfo, Publication

T = TypeVar("T")

HISTORY = HistoryOptions(size=10, ttl_s=60.0, meta_ttl_s=600.0)
KEPT = PublishOptions(history=HISTORY)


def now(call: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends, as all coroutines of the memory engine. Raises AssertionError if
    the coroutine suspends.
    """
    try:
        call.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # StopIteration does not know what it carries
    raise AssertionError("suspended")


class Node:
    """Records the payloads of all announcements, and calls `react` for each of them."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.react: Callable[[str, bytes], None] = lambda channel, data: None

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        previous: int,
        exclude: Sequence[str],
        delta: bool = False,
    ) -> None:
        data = bytes(publication.data)
        self.heard.append((channel, data))
        self.react(channel, data)

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self.heard.append((channel, b"join"))

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        self.heard.append((channel, b"leave"))

    def on_link_down(self, channels: Sequence[str] | None) -> None:
        raise AssertionError("there is no link")

    def on_link_up(self, channels: Sequence[str] | None) -> None:
        raise AssertionError("there is no link")


class World:
    """A started engine with its clock and node."""

    def __init__(self, idempotency_keys_max: int = 1000, history_bytes_max: int = 10**9) -> None:
        self.clock = ManualClock()
        self.times_full = 0
        self.engine: MemoryEngine = memory_engine(
            self.clock,
            idempotency_keys_max=idempotency_keys_max,
            history_bytes_max=history_bytes_max,
            on_history_full=self._on_full,
        )
        self.broker = self.engine.broker
        self.presence = self.engine.presence
        self.node = Node()
        now(self.broker.start(self.node))

    def _on_full(self) -> None:
        self.times_full += 1

    def cost(self, *sizes: int) -> int:
        """Memory for publications of these sizes, without tags and info."""
        return sum(PUBLICATION_BYTES + size for size in sizes)

    def positions(self, *channels: str) -> int:
        """Memory for the positions of these channels."""
        return sum(POSITION_BYTES + sys.getsizeof(channel) for channel in channels)

    def publish(self, channel: str, data: bytes = b"{}", options: PublishOptions = KEPT) -> PublishOutcome:
        return now(self.broker.publish(channel, Raw(data), options))

    def offsets(self, channel: str) -> list[int]:
        return [publication.offset for publication in now(self.broker.history(channel, HISTORY, -1)).publications]

    def sweep_all(self) -> int:
        """Sweeps until no expired data is left. Returns the number of sweeps."""
        sweeps = 1
        while self.engine.sweep():
            sweeps += 1
        return sweeps
