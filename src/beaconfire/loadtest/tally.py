"""What one subscriber has heard of one channel: whether each message is new, late or there twice.

Order is promised for each publisher. Two publishers race to the server, so their order means nothing; within one, a
message after a later one has been overtaken. Publishers take turns: message `k` comes from publisher `k % publishers`.
"""

from __future__ import annotations

from enum import IntEnum


class Arrival(IntEnum):
    """How a message came."""

    NEW = 0
    REORDERED = 1
    DUPLICATE = 2


class Tally:
    """Remembers the last message of each publisher, and ranges of those that were skipped until they come after all.

    A range costs no more than the message that made it, so a tally stays small unless most come out of order.
    """

    __slots__ = ("_last", "_skipped", "_step")

    def __init__(self, publishers: int) -> None:
        self._step = publishers
        self._last = [publisher - publishers for publisher in range(publishers)]
        self._skipped: list[range] = []

    def arrive(self, message: int) -> Arrival:
        """Message `message` of this channel has come."""
        publisher = message % self._step
        last = self._last[publisher]
        if message > last:
            if message != last + self._step:
                self._skipped.append(range(last + self._step, message, self._step))
            self._last[publisher] = message
            return Arrival.NEW
        for index, gap in enumerate(self._skipped):
            if message in gap:
                parts = range(gap.start, message, self._step), range(message + self._step, gap.stop, self._step)
                self._skipped[index : index + 1] = [part for part in parts if part]
                return Arrival.REORDERED
        return Arrival.DUPLICATE
