"""The embedded engine: everything in this process, nothing else needed, nothing left when it ends."""

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
    """The memory engine's three ports under their own types, which can also be swept and counted."""

    broker: MemoryBroker
    presence: MemoryPresenceStore
    control: MemoryControlBus

    def sweep(self) -> bool:
        """Gives back the memory of what is expired, for a few milliseconds at most. To be called every second or so.

        True if there is more: then again after letting others run. What is expired is never seen, swept or not.
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
    """`new_epoch` names streams, random letters by default; "" and "_" stand for no epoch and are never one.

    `idempotency_keys_max` is how many keys are remembered at once; beyond it the oldest is forgotten.
    `history_bytes_max` is how much memory all streams and their publications may take together; beyond it the oldest
    go (see `streams`). `on_history_full` is called for each call that made some go. It must not raise.
    """
    return MemoryEngine(
        name="memory",
        broker=MemoryBroker(clock, new_epoch or random_epoch, idempotency_keys_max, history_bytes_max, on_history_full),
        presence=MemoryPresenceStore(clock),
        control=MemoryControlBus(),
    )


def random_epoch() -> str:
    """Eight random letters. Some come a little more often than others, which does not matter: 45 bits differ."""
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
