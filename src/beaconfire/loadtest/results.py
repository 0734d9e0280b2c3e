"""What one worker has counted: deliveries, latencies and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from beaconfire.loadtest.failures import Failure, FailureKind
from beaconfire.loadtest.histogram import Histogram
from beaconfire.loadtest.messages import DATA, Encoding
from beaconfire.loadtest.sequence import DeliveryStatus

FAILURES_MAX: Final = 50
"""Different failures that are counted separately. Further ones are counted together, one entry per kind."""

_REASON_LENGTH_MAX: Final = 100


class Delivery(NamedTuple):
    """One load test message in a frame: its channel, its number in this channel, and the time at which it was due."""

    channel: int
    message: int
    due_ns: int


class ParsedFrame(NamedTuple):
    """The load test messages of a frame, and its other messages, which are not decoded yet.

    Results of publish commands are left out.
    """

    deliveries: Sequence[Delivery]
    others: Sequence[bytes]


class Results:
    """Shared by all connections of a worker.

    Fan-out sends the same bytes to every subscriber, so the last frame is kept and parsed only once.
    """

    def __init__(self, encoding: Encoding, channels: int, now_ns: Callable[[], int]) -> None:
        self.now_ns = now_ns
        self._split = encoding.codec.split
        self._publish_succeeded = encoding.publish_succeeded.fullmatch
        self._channels = channels
        self._failures: Counter[tuple[FailureKind, int, str]] = Counter()
        self.start_run(0)

    def start_run(self, start_ns: int) -> None:
        """Resets all counters. Messages that were due before `start_ns` belong to an earlier run and do not count."""
        self.start_ns = self.last_ns = start_ns
        self.delivered = self.duplicated = self.reordered = 0
        self.latency = Histogram()
        self._payload = b""
        self._frame = ParsedFrame((), ())

    def parse_frame(self, payload: bytes) -> ParsedFrame:
        """Raises ProtocolError if the frame is not a frame of this protocol."""
        if payload != self._payload:
            self._frame = self._parse(payload)
            self._payload = payload
        return self._frame

    def _parse(self, payload: bytes) -> ParsedFrame:
        deliveries, others = [], []
        for message in self._split(payload):
            if found := DATA.search(message):
                due_ns, number = int(found[1]), int(found[2])
                if due_ns >= self.start_ns:
                    deliveries.append(Delivery(number % self._channels, number // self._channels, due_ns))
            elif not self._publish_succeeded(message):
                others.append(message)
        return ParsedFrame(deliveries, others)

    def count(self, status: DeliveryStatus, due_ns: int, now_ns: int) -> None:
        if status is DeliveryStatus.DUPLICATE:
            self.duplicated += 1
            return
        if status is DeliveryStatus.REORDERED:
            self.reordered += 1
        self.delivered += 1
        self.last_ns = now_ns
        self.latency.record(now_ns - due_ns)

    # --- failures ---

    def add_failure(self, kind: FailureKind, code: int, reason: str) -> None:
        """The server chooses the reason: control characters are replaced, because a terminal would execute them."""
        key = kind, code, "".join(c if c.isprintable() else "?" for c in reason[:_REASON_LENGTH_MAX])
        if key not in self._failures and len(self._failures) >= FAILURES_MAX:
            key = kind, 0, "others"
        self._failures[key] += 1

    def take_failures(self) -> tuple[Failure, ...]:
        """The failures since the last call."""
        taken = tuple(Failure(*key, count) for key, count in self._failures.items())
        self._failures.clear()
        return taken
