"""When each message of a run is due, whatever the server does: the load is decided by the clock alone."""

from __future__ import annotations

from collections.abc import Iterator

from beaconfire.loadtest.plan import Plan


class Schedule:
    """The messages of one worker in one run, in order, each once.

    Message `n` is due `n / rate` seconds after the start. `rate` is that of all workers together, per second.
    """

    def __init__(self, plan: Plan, worker: int, *, start_ns: int, rate: float, duration_s: float) -> None:
        self._start_ns = start_ns
        self._gap_ns = 1e9 / rate
        self._total = message_count(rate, duration_s)
        self._mine = [n for n in range(plan.period) if plan.publisher(n) % plan.workers == worker]
        self._period = plan.period
        self._taken = 0

    def due_ns(self, message: int) -> int:
        return self._start_ns + int(message * self._gap_ns)

    @property
    def next_message(self) -> int | None:
        """The first that has not been taken; None at the end."""
        if not self._mine:
            return None
        turns, index = divmod(self._taken, len(self._mine))
        message = turns * self._period + self._mine[index]
        return message if message < self._total else None

    @property
    def next_due_ns(self) -> int | None:
        message = self.next_message
        return None if message is None else self.due_ns(message)

    def take(self, now_ns: int) -> Iterator[tuple[int, int]]:
        """Every message that is due by now, with the time at which it was."""
        while (message := self.next_message) is not None and (due_ns := self.due_ns(message)) <= now_ns:
            self._taken += 1
            yield message, due_ns

    def end(self) -> None:
        """Nothing more is due."""
        self._mine = []


def message_count(rate: float, duration_s: float) -> int:
    """Of a run: at least one, for the first is due at once."""
    return max(1, round(rate * duration_s))
