"""Idempotency keys of publishes, so that a repeated publish has no effect."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from beaconfire.engines.memory.dicts import shrink_dict
from beaconfire.engines.port import IDEMPOTENCY_TTL_S
from beaconfire.model.position import StreamPosition


class IdempotencyKeys:
    """Positions by channel and idempotency key. A key expires `IDEMPOTENCY_TTL_S` after the first publish.

    At most `keys_max` keys are kept. Above that the oldest key is evicted before it expires; `evicted_total` counts
    these evictions.
    """

    __slots__ = ("_keys_max", "_table", "evicted_total")

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        # In the order of expiry, because all keys have the same time to live. An OrderedDict, because finding the
        # first entry of a plain dict takes time for all entries that were deleted before it.
        self._table: OrderedDict[tuple[str, str], tuple[float, StreamPosition]] = OrderedDict()
        self.evicted_total = 0

    def __len__(self) -> int:
        return len(self._table)

    def find(self, channel: str, key: str, now_s: float) -> StreamPosition | None:
        """The position of the first publish with this key, or None if the key is unknown or has expired."""
        found = self._table.get((channel, key))
        return found[1] if found is not None and now_s < found[0] else None

    def store(self, channel: str, key: str, position: StreamPosition, now_s: float) -> None:
        """Keeps the key, which must be unknown or expired."""
        self._table.pop((channel, key), None)  # Otherwise an expired key would keep its old place in the order.
        if len(self._table) >= self._keys_max:
            self._table.popitem(last=False)
            self.evicted_total += 1
        self._table[channel, key] = (now_s + IDEMPOTENCY_TTL_S, position)

    def names(self) -> list[tuple[str, str]]:
        """All channels and keys, in the order in which they were stored. A snapshot: linear, for a migration."""
        return list(self._table)

    def newest(self) -> Iterator[tuple[tuple[str, str], tuple[float, StreamPosition]]]:
        """All keys with channel, expiry and position, the newest first. The table must not change meanwhile."""
        return reversed(self._table.items())

    def get(self, channel: str, key: str) -> tuple[float, StreamPosition] | None:
        """The expiry and the position of a key, expired or not."""
        return self._table.get((channel, key))

    def put(self, channel: str, key: str, position: StreamPosition, expires_s: float) -> None:
        """Keeps or replaces a key of another engine. It is behind keys that expire later, so it may be swept later."""
        self._table.pop((channel, key), None)
        if len(self._table) >= self._keys_max:
            self._table.popitem(last=False)
            self.evicted_total += 1
        self._table[channel, key] = (expires_s, position)

    def remove(self, channel: str, key: str) -> None:
        """Forgets a key, if it is known."""
        self._table.pop((channel, key), None)

    def sweep(self, now_s: float, budget: int) -> bool:
        """Removes at most `budget` expired keys. True if more remain."""
        while self._has_expired(now_s):
            if budget == 0:
                return True
            budget -= 1
            self._table.popitem(last=False)
            shrink_dict(self._table)
        return False

    def _has_expired(self, now_s: float) -> bool:
        return bool(self._table) and next(iter(self._table.values()))[0] <= now_s
