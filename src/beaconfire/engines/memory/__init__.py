"""The embedded engine. All data is in the memory of this process, and is lost when the process ends."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable

from beaconfire.base.clock import Clock
from beaconfire.engines.memory.broker import (
    HISTORY_BYTES_MAX,
    IDEMPOTENCY_KEYS_MAX,
    MemoryBroker,
    MemoryBrokerStatistics,
)
from beaconfire.engines.memory.control import MemoryControlBus, MemoryControlStatistics
from beaconfire.engines.memory.presence import MemoryPresenceStatistics, MemoryPresenceStore
from beaconfire.engines.memory.transfer import MemoryTransfer
from beaconfire.engines.port import Engine, EngineStatistics

_EPOCH_LETTERS = 8
_LETTER_OF_BYTE = bytes(ord(string.ascii_letters[byte % len(string.ascii_letters)]) for byte in range(256))


class MemoryEngine(Engine, frozen=True):
    """An `Engine` with the types of its parts, which offer more figures. No call ever suspends."""

    broker: MemoryBroker
    presence: MemoryPresenceStore
    control: MemoryControlBus

    def sweep(self) -> bool:
        """See `Engine.sweep`."""
        more_in_broker = self.broker.sweep()
        more_in_presence = self.presence.sweep()
        return more_in_broker or more_in_presence

    def transfer(self) -> MemoryTransfer:
        """See `engines.transfer.Transferable`."""
        return self.broker.transfer()

    def statistics(self) -> EngineStatistics:
        """See `Engine.statistics`."""
        broker = self.broker.statistics()
        return EngineStatistics(history_publications=broker.publications, history_bytes=broker.bytes)


def memory_engine(
    clock: Clock,
    new_epoch: Callable[[], str] | None = None,
    idempotency_keys_max: int = IDEMPOTENCY_KEYS_MAX,
    history_bytes_max: int = HISTORY_BYTES_MAX,
    on_history_full: Callable[[], None] = lambda: None,
) -> MemoryEngine:
    """Creates an engine.

    `new_epoch` returns a new epoch for each stream, by default random letters. It must not return "" or "_", which
    mean "no epoch". `idempotency_keys_max` is the number of keys that are kept; above it the oldest key is evicted.
    `history_bytes_max` is the memory limit of all streams and publications together; above it the oldest are removed
    (see `streams`). `on_history_full` is called after each call that removed data because of this limit. It must not
    raise.
    """
    return MemoryEngine(
        name="memory",
        broker=MemoryBroker(clock, new_epoch or random_epoch, idempotency_keys_max, history_bytes_max, on_history_full),
        presence=MemoryPresenceStore(clock),
        control=MemoryControlBus(),
        suspends=False,
        keeps_order=True,
        single_node=True,
    )


def random_epoch() -> str:
    """Eight random letters, with about 45 bits of randomness. Some letters are slightly more frequent than others."""
    return secrets.token_bytes(_EPOCH_LETTERS).translate(_LETTER_OF_BYTE).decode("ascii")


__all__ = [
    "HISTORY_BYTES_MAX",
    "IDEMPOTENCY_KEYS_MAX",
    "MemoryBroker",
    "MemoryBrokerStatistics",
    "MemoryControlBus",
    "MemoryControlStatistics",
    "MemoryEngine",
    "MemoryPresenceStatistics",
    "MemoryPresenceStore",
    "memory_engine",
    "random_epoch",
]
