"""What keyed publishes came to, so that a repeated one changes nothing."""

from __future__ import annotations

from collections import OrderedDict

from beaconfire.engines.memory.tables import shrink
from beaconfire.model.position import StreamPosition

IDEMPOTENCY_TTL_S = 300.0
"""How long a key is remembered: five minutes, as section 20 of the protocol reference has it."""


class Outcomes:
    """Positions by channel and idempotency key, for `IDEMPOTENCY_TTL_S` from the first publish.

    At most `keys_max`; beyond it the oldest is forgotten, and `forgotten_total` counts how often that was early.
    """

    __slots__ = ("_keys_max", "_table", "forgotten_total")

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        # In the order of their expiry, because all live equally long. A plain dict finds its first entry only by
        # walking over all that were deleted before it.
        self._table: OrderedDict[tuple[str, str], tuple[float, StreamPosition]] = OrderedDict()
        self.forgotten_total = 0

    def __len__(self) -> int:
        return len(self._table)

    def find(self, channel: str, key: str, now_s: float) -> StreamPosition | None:
        found = self._table.get((channel, key))
        return found[1] if found is not None and now_s < found[0] else None

    def remember(self, channel: str, key: str, position: StreamPosition, now_s: float) -> None:
        self._table.pop((channel, key), None)  # An expired one keeps its old place in the order otherwise.
        if len(self._table) >= self._keys_max:
            self._table.popitem(last=False)
            self.forgotten_total += 1
        self._table[channel, key] = (now_s + IDEMPOTENCY_TTL_S, position)

    def sweep(self, now_s: float, budget: int) -> bool:
        """Drops expired keys, at most `budget` of them. True if there are more."""
        while self._has_expired(now_s):
            if budget == 0:
                return True
            budget -= 1
            self._table.popitem(last=False)
            shrink(self._table)
        return False

    def _has_expired(self, now_s: float) -> bool:
        return bool(self._table) and next(iter(self._table.values()))[0] <= now_s
