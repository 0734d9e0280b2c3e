"""What waits to be sent to one session, and the one write per session and tick that sends it.

Theory of operation. Writing is nearly all that fan-out costs, so nothing is written when it is produced. Frames are
put into the session's outbox; the first one puts the outbox on the flusher's list; on the next turn of the event loop
the flusher writes every listed outbox once, all its frames joined. Idle, a message leaves at once; under load turns
grow longer and batches with them. The flusher works in slices of a few milliseconds, so a channel of 15,000
subscribers does not stall the loop; each outbox is first in, first out, so order never depends on the slicing.

The flusher writes in volleys: it first collects what some dozens of outboxes have to send, and then hands it to their
sockets in one go, in a loop that is no Python. Turning to and fro between interpreter and network stack for each
delivery would cost both their caches, which is more than the interpreting.

Frames are shared between outboxes, so what waits costs a reference each, not a copy. A peer that does not read makes
its transport unwritable; its outbox then grows up to a limit and overflows: the session ends as slow, and nobody else
notices. Nothing here calls out of `append`, so fan-out may append while it walks its tables.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from beaconfire.protocols.port import Frame

SLICE_S = 0.004
"""How long the flusher writes before it lets the event loop breathe."""

WRITE_BATCH_MAX = 64
"""Outboxes that are written in one go, between two looks at the clock."""


class Writable(Protocol):
    """The part of a transport an outbox needs; see `transports.base.Transport`."""

    @property
    def writable(self) -> bool: ...

    @property
    def direct(self) -> object | None: ...

    @property
    def buffered_bytes(self) -> int: ...

    def write(self, data: Frame) -> None: ...

    def write_rest(self, data: Frame, sent: int) -> None: ...


SendAll: TypeAlias = Callable[[Sequence[Writable], Sequence[Frame]], list[int]]
"""Sends each frame to the `direct` socket of its transport; returns how many bytes of each were taken. Never raises."""


class WriteBatch:
    """Frames about to be sent, each with its transport, whose `direct` is not None. A transport is in it once."""

    __slots__ = ("frames", "transports")

    def __init__(self) -> None:
        self.transports: list[Writable] = []
        self.frames: list[Frame] = []


class Outbox:
    """Bounded queue of frames for one session."""

    __slots__ = ("_flusher", "_frame", "_limit_bytes", "_listed", "_more", "_on_overflow", "_transport", "queued_bytes")

    def __init__(
        self, transport: Writable, flusher: Flusher, limit_bytes: int, on_overflow: Callable[[], None]
    ) -> None:
        self._transport: Writable | None = transport
        self._flusher = flusher
        self._limit_bytes = limit_bytes
        self._on_overflow: Callable[[], None] | None = on_overflow
        self._frame: Frame | None = None
        self._more: list[Frame] | None = None
        self._listed = False
        self.queued_bytes = 0

    def append(self, frame: Frame) -> None:
        """Queues a frame; drops it if the outbox is closed or has overflowed. Calls nobody back."""
        if self._frame is None:
            self._frame = frame  # usually the only one, and then a list would cost more than all the rest here
        elif self._more is None:
            self._more = [frame]
        else:
            self._more.append(frame)
        self.queued_bytes += len(frame)
        if not self._listed:
            self._listed = True
            self._flusher.enlist(self)
        if self.queued_bytes > self._limit_bytes:
            self._relieve()

    def _relieve(self) -> None:
        """More is queued than may be: write now if the peer is able to take it, overflow if it is not."""
        transport = self._transport
        if transport is None:
            self._drop()
        elif transport.writable:
            self.flush()
            self._listed = True  # it still is, on the flusher's list
        else:
            self._transport = None
            self._drop()
            self._flusher.overflowed(self)

    @property
    def is_behind(self) -> bool:
        """The peer takes nothing at the moment."""
        return self._transport is not None and not self._transport.writable

    def flush(self) -> None:
        """Writes what is queued, if the peer takes it; otherwise `flush` must be called when it does again."""
        transport = self._transport
        if transport is None:
            self._listed = False
            self._drop()
        elif transport.writable:
            self._listed = False
            data = self._frame
            if data is not None:
                if self._more is not None:
                    data = b"".join((data, *self._more))
                self._drop()
                self._flusher.count(1, len(data))
                transport.write(data)
        # An unwritable outbox stays listed, so that `append` does not bother the flusher until `flush` is called.

    def collect(self, write_batch: WriteBatch) -> None:
        """Adds what is queued, joined, to a volley; or flushes, where that is not possible."""
        transport = self._transport
        data = self._frame
        if transport is None or data is None or transport.direct is None:
            self.flush()
            return
        if self._more is not None:
            data = b"".join((data, *self._more))
            self._more = None
        self._frame = None
        self._listed = False
        self.queued_bytes = 0
        write_batch.transports.append(transport)
        write_batch.frames.append(data)

    def add_to(self, frame: Frame, write_batch: WriteBatch) -> None:
        """Adds a frame to a volley that is fired on this turn; as `append` where others wait, or the peer must."""
        transport = self._transport
        if self._frame is None and transport is not None and transport.direct is not None:
            write_batch.transports.append(transport)
            write_batch.frames.append(frame)
        else:
            self.append(frame)

    def _drop(self) -> None:
        self._frame = self._more = None
        self.queued_bytes = 0

    def close(self) -> None:
        """Sends what can be sent at once and drops everything from then on."""
        self.flush()
        self._transport = None
        self._on_overflow = None
        self._drop()

    def report_overflow(self) -> None:
        """Called by the flusher, on a turn of its own."""
        if self._on_overflow is not None:
            self._on_overflow()


class Flusher:
    """Writes listed outboxes, once a turn, in slices."""

    def __init__(
        self, schedule: Callable[[Callable[[], None]], object], now_s: Callable[[], float], send_all: SendAll
    ) -> None:
        """`schedule` runs a callable on the next turn of the event loop."""
        self._schedule = schedule
        self._now_s = now_s
        self._send_all = send_all
        self._listed: deque[Outbox] = deque()
        self._overflowed: list[Outbox] = []
        self._scheduled = False
        self.writes_total = 0
        self.bytes_total = 0

    def enlist(self, outbox: Outbox) -> None:
        self._listed.append(outbox)
        if not self._scheduled:
            self._wake()

    def overflowed(self, outbox: Outbox) -> None:
        self._overflowed.append(outbox)
        self._wake()

    def count(self, writes: int, size: int) -> None:
        self.writes_total += writes
        self.bytes_total += size

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self._run)

    def _run(self) -> None:
        self._scheduled = False
        if self._overflowed:
            overflowed, self._overflowed = self._overflowed, []
            for outbox in overflowed:
                outbox.report_overflow()
        listed = self._listed
        deadline_s = self._now_s() + SLICE_S
        try:
            while listed:
                write_batch = WriteBatch()
                try:
                    for _ in range(min(len(listed), WRITE_BATCH_MAX)):
                        listed.popleft().collect(write_batch)
                finally:  # whatever one transport breaks: the others' frames are out of their outboxes already
                    self.flush_batch(write_batch)
                if self._now_s() > deadline_s:
                    break
        finally:
            if listed:
                self._wake()

    def flush_batch(self, write_batch: WriteBatch) -> None:
        """Sends it. What a socket does not take of its frame is written by the transport in its own way."""
        frames = write_batch.frames
        sizes = list(map(len, frames))
        taken = self._send_all(write_batch.transports, frames)
        self.count(len(sizes), sum(sizes))
        if taken != sizes:
            for transport, frame, sent in zip(write_batch.transports, frames, taken, strict=True):
                if sent != len(frame):
                    transport.write_rest(frame, sent)
