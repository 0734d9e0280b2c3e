"""What one worker has counted: arrivals, latencies, troubles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from beaconfire.loadtest.codes import Kind
from beaconfire.loadtest.dialect import MARK, Dialect
from beaconfire.loadtest.histogram import Histogram
from beaconfire.loadtest.orders import Trouble
from beaconfire.loadtest.tally import Arrival

TROUBLES_MAX: Final = 50
"""Kinds of trouble that are told apart; a server that makes up more of them gets one line for the rest."""

_REASON_LENGTH_MAX: Final = 100


class Mark(NamedTuple):
    """One of our messages, as found in a frame: its channel, its number there, and when it was due."""

    channel: int
    message: int
    due_ns: int


class Frame(NamedTuple):
    """What a frame holds: our messages, and all others undecoded."""

    marks: Sequence[Mark]
    others: Sequence[bytes]


class Ledger:
    """Shared by all connections of a worker.

    Fan-out sends the same bytes to every subscriber, so the last frame is remembered and read only once.
    """

    def __init__(self, dialect: Dialect, channels: int, now_ns: Callable[[], int]) -> None:
        self.now_ns = now_ns
        self._dialect = dialect
        self._channels = channels
        self._troubles: Counter[tuple[Kind, int, str]] = Counter()
        self.begin(0)

    def begin(self, start_ns: int) -> None:
        """A run begins: what was due before it does not count."""
        self.start_ns = self.last_ns = start_ns
        self.arrived = self.duplicated = self.reordered = 0
        self.latency = Histogram()
        self._payload = b""
        self._frame = Frame((), ())

    def read(self, payload: bytes) -> Frame:
        """Raises FormatError if the frame is none of this protocol."""
        if payload != self._payload:
            self._frame = self._parsed(payload)
            self._payload = payload
        return self._frame

    def _parsed(self, payload: bytes) -> Frame:
        marks, others = [], []
        for message in self._dialect.split(payload):
            if found := MARK.search(message):
                due_ns, number = int(found[1]), int(found[2])
                if due_ns >= self.start_ns:
                    marks.append(Mark(number % self._channels, number // self._channels, due_ns))
            else:
                others.append(message)
        return Frame(marks, others)

    def count(self, how: Arrival, due_ns: int, now_ns: int) -> None:
        if how is Arrival.DUPLICATE:
            self.duplicated += 1
            return
        if how is Arrival.REORDERED:
            self.reordered += 1
        self.arrived += 1
        self.last_ns = now_ns
        self.latency.record(now_ns - due_ns)

    # --- troubles ---

    def trouble(self, kind: Kind, code: int, reason: str) -> None:
        """The reason may be a stranger's text, and a terminal obeys control characters."""
        key = kind, code, "".join(c if c.isprintable() else "?" for c in reason[:_REASON_LENGTH_MAX])
        if key not in self._troubles and len(self._troubles) >= TROUBLES_MAX:
            key = kind, 0, "others"
        self._troubles[key] += 1

    def take_troubles(self) -> tuple[Trouble, ...]:
        """Those since the last time."""
        taken = tuple(Trouble(*key, count) for key, count in self._troubles.items())
        self._troubles.clear()
        return taken
