"""The frames that wait for one session, and the one write per session and turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.base.loop import SLICE_S
from beaconfire.delivery.outbox import WRITE_BATCH_MAX, Flusher, Outbox, Writable, WriteBatch
from beaconfire.protocols.port import Frame
from tests.fakes.transport import RecordingTransport


class TimedTransport(RecordingTransport):
    """A transport whose writes take `write_s` each. Its socket may take only the beginning of a frame."""

    def __init__(self, clock: ManualClock, write_s: float = 0.0) -> None:
        super().__init__()
        self._clock = clock
        self._write_s = write_s

    def write(self, frames: Sequence[Frame]) -> None:
        super().write(frames)
        self._clock.advance(self._write_s)

    def write_rest(self, data: bytes, sent: int) -> None:
        self.direct = None
        self.writes.append(data[sent:])


class FlusherHarness:
    """A flusher whose turns of the event loop the test runs. Each socket takes at most `taken_max` bytes of a frame."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.scheduled: list[Callable[[], None]] = []
        self.flusher = Flusher(self.scheduled.append, self.clock.now_s, self.send_all)
        self.slow: list[str] = []
        self.taken_max = 1000
        self.batches: list[int] = []
        """The sizes of the write batches."""

    def send_all(self, transports: Sequence[Writable], frames: Sequence[bytes]) -> list[int]:
        for transport, frame in zip(transports, frames, strict=True):
            assert isinstance(transport, TimedTransport)
            assert transport.direct is transport
            transport.writes.append(frame[: self.taken_max])
        self.batches.append(len(frames))
        return [min(len(frame), self.taken_max) for frame in frames]

    def new_outbox(self, name: str = "x", limit_bytes: int = 10, write_s: float = 0.0) -> tuple[Outbox, TimedTransport]:
        transport = TimedTransport(self.clock, write_s)
        return Outbox(transport, self.flusher, limit_bytes, lambda: self.slow.append(name)), transport

    def run_turn(self) -> None:
        """One turn of the event loop: the callbacks that are scheduled now, without those that they schedule."""
        due, self.scheduled[:] = list(self.scheduled), []
        for call in due:
            call()


def test_frames_of_one_turn_are_one_write() -> None:
    """They are written in order, and not before the next turn."""
    harness = FlusherHarness()
    outbox, transport = harness.new_outbox()
    for frame in (b"a", b"b", b"c"):
        outbox.append(frame)
    assert transport.writes == []
    assert outbox.queued_bytes == 3
    assert len(harness.scheduled) == 1
    harness.run_turn()
    assert transport.writes == [b"abc"]
    assert outbox.queued_bytes == 0
    assert (harness.flusher.writes_total, harness.flusher.bytes_total) == (1, 3)


def test_flusher_is_scheduled_once_for_all_outboxes() -> None:
    """It is scheduled again only for new frames."""
    harness = FlusherHarness()
    first, first_transport = harness.new_outbox()
    second, second_transport = harness.new_outbox()
    first.append(b"a")
    second.append(b"b")
    assert len(harness.scheduled) == 1
    harness.run_turn()
    assert (first_transport.writes, second_transport.writes) == ([b"a"], [b"b"])
    assert harness.scheduled == []
    first.append(b"c")
    harness.run_turn()
    assert first_transport.writes == [b"a", b"c"]


def test_outbox_over_its_limit_is_written_at_once_if_the_transport_is_writable() -> None:
    """A burst does not end a session whose client reads."""
    harness = FlusherHarness()
    outbox, transport = harness.new_outbox(limit_bytes=10)
    outbox.append(b"12345")
    outbox.append(b"67890")
    assert transport.writes == []
    outbox.append(b"x")
    assert transport.writes == [b"1234567890x"]
    outbox.append(b"y")
    harness.run_turn()
    assert transport.writes == [b"1234567890x", b"y"]
    assert harness.slow == []


def test_single_frame_may_be_larger_than_the_limit() -> None:
    """The limit is for frames that wait. Other limits bound the size of one message."""
    harness = FlusherHarness()
    outbox, transport = harness.new_outbox(limit_bytes=10)
    outbox.append(b"x" * 50)
    harness.run_turn()
    assert transport.writes == [b"x" * 50]
    assert harness.slow == []


def test_first_frame_counts_against_the_limit() -> None:
    """A first frame over the limit is not kept for an unwritable transport."""
    harness = FlusherHarness()
    outbox, transport = harness.new_outbox(limit_bytes=10)
    transport.writable = False
    outbox.append(b"x" * 50)
    assert outbox.queued_bytes == 0
    harness.run_turn()
    assert harness.slow == ["x"]
    assert transport.writes == []


def test_unwritable_transport_gets_all_frames_when_it_is_writable_again() -> None:
    """Meanwhile nothing is written or scheduled. `flush` writes the frames in order."""
    harness = FlusherHarness()
    outbox, transport = harness.new_outbox()
    transport.writable = False
    outbox.append(b"a")
    harness.run_turn()
    outbox.append(b"b")
    assert transport.writes == []
    assert harness.scheduled == []
    transport.writable = True
    outbox.flush()
    assert transport.writes == [b"ab"]
    outbox.append(b"c")
    harness.run_turn()
    assert transport.writes == [b"ab", b"c"]


def test_overflow_is_reported_on_a_later_turn() -> None:
    """The queue is dropped at once, and `append` calls no callback. The overflow is reported once."""
    harness = FlusherHarness()
    outbox, transport = harness.new_outbox("slow", limit_bytes=10)
    transport.writable = False
    outbox.append(b"12345")
    outbox.append(b"67890")
    assert outbox.queued_bytes == 10
    outbox.append(b"x")
    assert outbox.queued_bytes == 0
    assert harness.slow == []
    for _ in range(100):
        outbox.append(b"123")
        assert outbox.queued_bytes <= 10, "the queue is bounded until the owner reacts"
    harness.run_turn()
    assert harness.slow == ["slow"]
    harness.run_turn()
    transport.writable = True
    outbox.flush()
    assert harness.slow == ["slow"]
    assert transport.writes == []


def test_slow_client_does_not_delay_others() -> None:
    """The frames of other outboxes are written on the same turn."""
    harness = FlusherHarness()
    slow, slow_transport = harness.new_outbox("slow", limit_bytes=1)
    quick, quick_transport = harness.new_outbox("quick", limit_bytes=1)
    slow_transport.writable = False
    for frame in (b"a", b"b", b"c"):
        slow.append(frame)
        quick.append(frame)
    harness.run_turn()
    assert b"".join(quick_transport.writes) == b"abc"
    assert harness.slow == ["slow"]


def test_failing_transport_does_not_stop_others() -> None:
    """Neither the frames of the same write batch nor later ones are lost."""

    class Broken(TimedTransport):
        def write(self, frames: Sequence[Frame]) -> None:
            raise ZeroDivisionError

    harness = FlusherHarness()
    before, behind = (harness.new_outbox() for _ in range(2))
    for _, transport in (before, behind):
        transport.direct = transport
    broken = Outbox(Broken(harness.clock), harness.flusher, 10, lambda: None)
    for outbox in (before[0], broken, behind[0]):
        outbox.append(b"a")
    with pytest.raises(ZeroDivisionError):
        harness.run_turn()
    harness.run_turn()
    assert [transport.writes for _, transport in (before, behind)] == [[b"a"], [b"a"]]


class MessageFrame:
    """A frame that cannot be concatenated."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


def test_frames_are_passed_on_without_joining() -> None:
    """Only the transport knows how to join its frames. All frames are one write, and count with their sizes."""

    class Collecting(TimedTransport):
        def write(self, frames: Sequence[Frame]) -> None:
            written.append(list(frames))

    harness = FlusherHarness()
    written: list[list[Frame]] = []
    outbox = Outbox(Collecting(harness.clock), harness.flusher, 10, lambda: None)
    one, two, three = MessageFrame(3), MessageFrame(4), MessageFrame(2)
    outbox.append(one)
    harness.run_turn()
    outbox.append(two)
    outbox.append(three)
    assert outbox.queued_bytes == 6
    harness.run_turn()
    assert written == [[one], [two, three]]
    assert (harness.flusher.writes_total, harness.flusher.bytes_total) == (2, 9)


def test_closing_writes_queued_frames_and_drops_later_ones() -> None:
    """Frames that are appended after the end are not kept."""
    harness = FlusherHarness()
    outbox, transport = harness.new_outbox()
    outbox.append(b"final frame")
    outbox.close()
    assert transport.writes == [b"final frame"]
    outbox.append(b"late frame")
    harness.run_turn()
    harness.run_turn()
    assert transport.writes == [b"final frame"]
    assert outbox.queued_bytes == 0


def test_closing_a_slow_outbox_drops_its_queue() -> None:
    """The outbox does not wait for a client that does not read, and reports no overflow after its end."""
    harness = FlusherHarness()
    outbox, transport = harness.new_outbox(limit_bytes=1)
    transport.writable = False
    for frame in (b"a", b"b", b"c"):
        outbox.append(frame)
    outbox.close()
    harness.run_turn()
    transport.writable = True
    outbox.flush()
    assert transport.writes == []
    assert harness.slow == []
    assert outbox.queued_bytes == 0


def test_flusher_writes_in_slices() -> None:
    """After a few milliseconds of writing, the event loop has its turn. Then the flusher continues."""
    harness = FlusherHarness()
    transports = []
    for _ in range(3 * WRITE_BATCH_MAX + 4):
        outbox, transport = harness.new_outbox(write_s=SLICE_S)
        outbox.append(b"x")
        transports.append(transport)
    written = []
    while harness.scheduled:
        harness.run_turn()
        written.append(sum(1 for transport in transports if transport.writes))
    assert written == [WRITE_BATCH_MAX, 2 * WRITE_BATCH_MAX, 3 * WRITE_BATCH_MAX, 3 * WRITE_BATCH_MAX + 4]
    assert all(transport.writes == [b"x"] for transport in transports)


def test_frames_that_arrive_between_slices_are_written_in_order() -> None:
    """An outbox that was written already goes to the end of the list, so no outbox starves."""
    harness = FlusherHarness()
    boxes = [harness.new_outbox(write_s=SLICE_S) for _ in range(2 * WRITE_BATCH_MAX)]
    for outbox, _ in boxes:
        outbox.append(b"1")
    harness.run_turn()
    for outbox, _ in boxes:
        outbox.append(b"2")
    harness.run_turn()
    assert [transport.writes for _, transport in boxes[:WRITE_BATCH_MAX]] == [[b"1"]] * WRITE_BATCH_MAX
    assert [transport.writes for _, transport in boxes[WRITE_BATCH_MAX:]] == [[b"12"]] * WRITE_BATCH_MAX
    harness.run_turn()
    assert [transport.writes for _, transport in boxes[:WRITE_BATCH_MAX]] == [[b"1", b"2"]] * WRITE_BATCH_MAX


def test_direct_sockets_are_sent_to_in_write_batches() -> None:
    """The frames of an outbox are one send, and many outboxes are one write batch. Each send counts as a write."""
    harness = FlusherHarness()
    boxes = [harness.new_outbox() for _ in range(WRITE_BATCH_MAX + 1)]
    for outbox, transport in boxes:
        transport.direct = transport
        outbox.append(b"a")
        outbox.append(b"b")
    harness.run_turn()
    assert harness.batches == [WRITE_BATCH_MAX, 1]
    assert all(transport.writes == [b"ab"] for _, transport in boxes)
    assert all(outbox.queued_bytes == 0 for outbox, _ in boxes)
    assert (harness.flusher.writes_total, harness.flusher.bytes_total) == (WRITE_BATCH_MAX + 1, 2 * WRITE_BATCH_MAX + 2)
    harness.run_turn()
    assert harness.batches == [WRITE_BATCH_MAX, 1]


def test_transport_writes_the_rest_of_a_frame() -> None:
    """The sent part is not sent again, and other transports of the write batch are not affected."""
    harness = FlusherHarness()
    harness.taken_max = 3
    (long, long_transport), (short, short_transport) = harness.new_outbox(), harness.new_outbox()
    long_transport.direct, short_transport.direct = long_transport, short_transport
    long.append(b"abcdef")
    short.append(b"xy")
    harness.run_turn()
    assert (long_transport.writes, short_transport.writes) == ([b"abc", b"def"], [b"xy"])
    assert [bool(transport.direct) for transport in (long_transport, short_transport)] == [False, True]


def test_frame_is_added_to_the_write_batch_only_if_the_outbox_is_empty() -> None:
    """Otherwise it would overtake queued frames. Without a direct socket, the frame waits for the flusher."""
    harness = FlusherHarness()
    write_batch = WriteBatch()
    (free, free_transport), (waiting, waiting_transport), (bound, bound_transport), (closed, _) = (
        harness.new_outbox() for _ in range(4)
    )
    free_transport.direct, waiting_transport.direct = free_transport, waiting_transport
    waiting.append(b"1")
    closed.close()
    for outbox in (free, waiting, bound, closed):
        outbox.add_to(b"2", write_batch)
    assert (write_batch.transports, write_batch.frames) == ([free_transport], [b"2"])
    harness.flusher.flush_batch(write_batch)
    assert (free_transport.writes, waiting_transport.writes, bound_transport.writes) == ([b"2"], [], [])
    harness.run_turn()
    assert (free_transport.writes, waiting_transport.writes, bound_transport.writes) == ([b"2"], [b"12"], [b"2"])


def test_moving_to_another_transport_drops_the_frames_of_the_old_one() -> None:
    """The frames have the form of the old transport. Later frames are written to the new one."""
    harness = FlusherHarness()
    outbox, old = harness.new_outbox()
    old.writable = False
    outbox.append(b"for the old transport")
    new = RecordingTransport()
    outbox.move_to(new)
    assert outbox.queued_bytes == 0
    outbox.append(b"for the new transport")
    harness.run_turn()
    outbox.flush()
    assert (old.writes, new.writes) == ([], [b"for the new transport"])
