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
from beaconfire.engines.port import Engine

_EPOCH_LETTERS = 8
_LETTER_OF_BYTE = bytes(ord(string.ascii_letters[byte % len(string.ascii_letters)]) for byte in range(256))


class MemoryEngine(Engine, frozen=True):
    """An `Engine` with the types of its parts, which also offer `sweep` and `statistics`."""

    broker: MemoryBroker
    presence: MemoryPresenceStore
    control: MemoryControlBus

    def sweep(self) -> bool:
        """Frees the memory of expired data, for a few milliseconds at most. The owner calls this about every second.

        True if more remains; then the owner calls again after other work of the event loop. Expired data is never
        returned, whether it has been swept or not.
        """
        more_in_broker = self.broker.sweep()
        more_in_presence = self.presence.sweep()
        return more_in_broker or more_in_presence


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
