"""The time at which each message of a run is due. It depends on the clock only, never on the server."""

from __future__ import annotations

from collections.abc import Iterator

from beaconfire.loadtest.plan import Plan


class Schedule:
    """The messages that one worker publishes in one run, in order, each once.

    Message `n` is due `n / rate` seconds after the start. `rate` is messages per second of all workers together.
    """

    def __init__(self, plan: Plan, worker: int, *, start_ns: int, rate: float, duration_s: float) -> None:
        self._start_ns = start_ns
        self._interval_ns = 1e9 / rate
        self._total = message_count(rate, duration_s)
        self._own = [n for n in range(plan.period) if plan.publisher(n) % plan.workers == worker]
        self._period = plan.period
        self._taken = 0

    def due_ns(self, message: int) -> int:
        return self._start_ns + int(message * self._interval_ns)

    @property
    def next_message(self) -> int | None:
        """The first message that has not been taken; None after the last one."""
        if not self._own:
            return None
        periods, index = divmod(self._taken, len(self._own))
        message = periods * self._period + self._own[index]
        return message if message < self._total else None

    @property
    def next_due_ns(self) -> int | None:
        message = self.next_message
        return None if message is None else self.due_ns(message)

    def take(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Every message that is due by now, with the time at which it was due."""
        while (message := self.next_message) is not None and (due_ns := self.due_ns(message)) <= now_ns:
            self._taken += 1
            yield message, due_ns

    def end(self) -> None:
        """Drops the remaining messages."""
        self._own = []


def message_count(rate: float, duration_s: float) -> int:
    """The number of messages of a run: at least one, because the first is due at the start."""
    return max(1, round(rate * duration_s))
