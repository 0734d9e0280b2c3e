"""Whether each message that one subscriber receives in one channel is new, reordered or a duplicate.

The server keeps the order of each publisher's messages. Two publishers race to the server, so the order between them
means nothing. A message is reordered if a later message of the same publisher came before. Publishers take turns:
message `k` of a channel comes from publisher `k % publishers`.
"""

from __future__ import annotations

from enum import IntEnum


class DeliveryStatus(IntEnum):
    NEW = 0
    REORDERED = 1
    DUPLICATE = 2


class SequenceChecker:
    """Remembers the last message of each publisher, and ranges of missing messages until these are received.

    Each message adds at most one range, so the list stays short unless most messages come out of order.
    """

    __slots__ = ("_last", "_missing", "_step")

    def __init__(self, publishers: int) -> None:
        self._step = publishers
        self._last = [publisher - publishers for publisher in range(publishers)]
        self._missing: list[range] = []

    def check(self, message: int) -> DeliveryStatus:
        """Records that message `message` of this channel was received."""
        publisher = message % self._step
        last = self._last[publisher]
        if message > last:
            if message != last + self._step:
                self._missing.append(range(last + self._step, message, self._step))
            self._last[publisher] = message
            return DeliveryStatus.NEW
        for index, gap in enumerate(self._missing):
            if message in gap:
                parts = range(gap.start, message, self._step), range(message + self._step, gap.stop, self._step)
                self._missing[index : index + 1] = [part for part in parts if part]
                return DeliveryStatus.REORDERED
        return DeliveryStatus.DUPLICATE
