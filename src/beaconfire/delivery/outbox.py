"""The frames that wait to be sent to one session, and the one write per session and turn that sends them.

Theory of operation. Writing to sockets is nearly all that fan-out costs, so a frame is not written when it is produced.
It is appended to the session's outbox. The first frame puts the outbox on the flusher's list. On the next turn of the
event loop, the flusher writes every listed outbox once, with all its frames joined. In an idle server, a frame is sent
at once. Under load, turns take longer and the joined frames get larger. The flusher works in slices of a few
milliseconds, so that a channel of 15,000 subscribers does not block the event loop. Each outbox is first in, first out,
so the order of frames does not depend on the slices.

The flusher collects the frames of some dozens of outboxes in a write batch, and then sends the batch to their sockets
in a loop that runs in C. To switch between the interpreter and the network stack for each delivery would evict both
from the CPU caches, which costs more than the interpreter itself.

Outboxes share frames, so a waiting frame costs a reference and not a copy. If a peer does not read, its transport
becomes unwritable, and its outbox grows up to a limit. Beyond the limit the session ends as slow. Other sessions are
not affected. `append` calls no code outside this module, so fan-out may append while it walks its tables.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from beaconfire.base.loop import SLICE_S, Schedule
from beaconfire.protocols.port import Frame

WRITE_BATCH_MAX = 64
"""Outboxes that are written together. The flusher reads the clock between two write batches."""


class Writable(Protocol):
    """The part of `transports.port.Transport` that an outbox uses."""

    @property
    def writable(self) -> bool: ...

    @property
    def direct(self) -> object | None: ...

    @property
    def buffered_bytes(self) -> int: ...

    def write(self, frames: Sequence[Frame]) -> None: ...

    def write_rest(self, data: bytes, sent: int) -> None: ...


SendAll: TypeAlias = Callable[[Sequence[Writable], Sequence[bytes]], list[int]]
"""Sends each frame to the `direct` socket of its transport. Returns how many bytes of each frame the socket took. Never
raises."""


class WriteBatch:
    """Frames to send together, each with its transport. A transport is in a batch once.

    Its `direct` is a socket, so its frames are bytes.
    """

    __slots__ = ("frames", "transports")

    def __init__(self) -> None:
        self.transports: list[Writable] = []
        self.frames: list[bytes] = []


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
        """Queues a frame. Drops the frame if the outbox is closed or has overflowed. Calls no callback."""
        if self._frame is None:
            self._frame = frame  # usually the only frame, so a list would cost more than the rest of this method
        elif self._more is None:
            self._more = [frame]
        else:
            self._more.append(frame)
        self.queued_bytes += len(frame)
        if not self._listed:
            self._listed = True
            self._flusher.add(self)
        if self.queued_bytes > self._limit_bytes:
            self._shrink()

    def _shrink(self) -> None:
        """Writes the frames now if the transport is writable. Otherwise the outbox overflows."""
        transport = self._transport
        if transport is None:
            self.drop()
        elif transport.writable:
            self.flush()
            self._listed = True  # the flusher's list still holds this outbox
        else:
            self._transport = None
            self.drop()
            self._flusher.overflowed(self)

    @property
    def is_behind(self) -> bool:
        """The transport is not writable at the moment."""
        return self._transport is not None and not self._transport.writable

    def flush(self) -> None:
        """Writes the queued frames if the transport is writable. Otherwise call `flush` when it is writable again."""
        transport = self._transport
        if transport is None:
            self._listed = False
            self.drop()
        elif transport.writable:
            self._listed = False
            frame = self._frame
            if frame is not None:
                frames = (frame,) if self._more is None else (frame, *self._more)
                self._flusher.count(1, self.queued_bytes)
                self.drop()
                transport.write(frames)
        # An unwritable outbox counts as listed, so that `append` does not call the flusher until `flush` is called.

    def collect(self, write_batch: WriteBatch) -> None:
        """Adds the queued frames, joined, to a write batch. Flushes instead if the transport has no direct socket."""
        transport = self._transport
        data = self._frame
        if transport is None or data is None or transport.direct is None:
            self.flush()
            return
        if self._more is not None:
            data = b"".join((data, *self._more))  # type: ignore[arg-type]  # bytes: the transport has a direct socket
            self._more = None
        self._frame = None
        self._listed = False
        self.queued_bytes = 0
        write_batch.transports.append(transport)
        write_batch.frames.append(data)  # type: ignore[arg-type]  # as above

    def add_to(self, frame: Frame, write_batch: WriteBatch) -> None:
        """Adds a frame to a write batch that is sent in this turn.

        Like `append` if frames are queued already, or if the transport has no direct socket.
        """
        transport = self._transport
        if self._frame is None and transport is not None and transport.direct is not None:
            write_batch.transports.append(transport)
            write_batch.frames.append(frame)  # type: ignore[arg-type]  # as in `collect`
        else:
            self.append(frame)

    def drop(self) -> None:
        """Drops the queued frames."""
        self._frame = self._more = None
        self.queued_bytes = 0

    def move_to(self, transport: Writable) -> None:
        """Drops the queued frames, which are frames of the old transport, and writes later frames to `transport`."""
        self.drop()
        self._transport = transport

    def close(self) -> None:
        """Writes the frames that can be written at once. Drops every later frame."""
        self.flush()
        self._transport = None
        self._on_overflow = None
        self.drop()

    def report_overflow(self) -> None:
        """Called by the flusher, outside of fan-out."""
        if self._on_overflow is not None:
            self._on_overflow()


class Flusher:
    """Writes the listed outboxes, once in each turn, in slices."""

    def __init__(self, schedule: Schedule, now_s: Callable[[], float], send_all: SendAll) -> None:
        self._schedule = schedule
        self._now_s = now_s
        self._send_all = send_all
        self._listed: deque[Outbox] = deque()
        self._overflowed: list[Outbox] = []
        self._scheduled = False
        self.writes_total = 0
        self.bytes_total = 0

    def add(self, outbox: Outbox) -> None:
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
                finally:  # after any exception: the frames of the other transports have left their outboxes
                    self.flush_batch(write_batch)
                if self._now_s() > deadline_s:
                    break
        finally:
            if listed:
                self._wake()

    def flush_batch(self, write_batch: WriteBatch) -> None:
        """Sends the batch. If a socket takes only a part of its frame, the transport writes the rest."""
        frames = write_batch.frames
        sizes = list(map(len, frames))
        taken = self._send_all(write_batch.transports, frames)
        self.count(len(sizes), sum(sizes))
        if taken != sizes:
            for transport, frame, sent in zip(write_batch.transports, frames, taken, strict=True):
                if sent != len(frame):
                    transport.write_rest(frame, sent)
