"""A clock that makes work take time."""

from __future__ import annotations

from beaconfire.base.clock import ManualClock


class AdvancingClock:
    """Each reading of the monotonic time advances `clock` by `step_s`, so that work between two readings takes time."""

    def __init__(self, clock: ManualClock, step_s: float) -> None:
        self._clock = clock
        self._step_s = step_s

    def now_s(self) -> float:
        self._clock.advance(self._step_s)
        return self._clock.now_s()

    def unix_s(self) -> float:
        return self._clock.unix_s()
