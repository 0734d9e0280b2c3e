"""What waits to be sent, and the one write per session and turn that sends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.base.loop import SLICE_S
from beaconfire.delivery.outbox import (
    WRITE_BATCH_MAX,
    Flusher,
    Outbox,
    Writable,
    WriteBatch,
)
from beaconfire.protocols.port import Frame


class Peer:
    """A transport that takes everything while it is writable; each write takes `cost_s`."""

    def __init__(self, clock: ManualClock, cost_s: float = 0.0) -> None:
        self.writable = True
        self.direct: object = None
        self.buffered_bytes = 0
        self.writes: list[bytes] = []
        self._clock = clock
        self._cost_s = cost_s

    def write(self, data: Frame) -> None:
        assert data, "an empty write"
        self.writes.append(data)
        self._clock.advance(self._cost_s)

    def write_rest(self, data: Frame, sent: int) -> None:
        self.direct = None
        self.writes.append(data[sent:])


class Stage:
    """A flusher whose turns are taken by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.scheduled: list[Callable[[], None]] = []
        self.flusher = Flusher(self.scheduled.append, self.clock.now_s, self.send_all)
        self.slow: list[str] = []
        self.takes = 1000
        self.volleys: list[int] = []

    def send_all(self, transports: Sequence[Writable], frames: Sequence[Frame]) -> list[int]:
        """Each peer's socket takes at most `takes` bytes of a frame."""
        for transport, frame in zip(transports, frames, strict=True):
            assert isinstance(transport, Peer)
            assert transport.direct is transport
            transport.writes.append(frame[: self.takes])
        self.volleys.append(len(frames))
        return [min(len(frame), self.takes) for frame in frames]

    def make(self, name: str = "x", limit_bytes: int = 10, cost_s: float = 0.0) -> tuple[Outbox, Peer]:
        peer = Peer(self.clock, cost_s)
        return Outbox(peer, self.flusher, limit_bytes, lambda: self.slow.append(name)), peer

    def turn(self) -> None:
        """One turn of the event loop: what is scheduled now, not what that schedules."""
        due, self.scheduled[:] = list(self.scheduled), []
        for call in due:
            call()


def test_frames_of_one_turn_are_one_write() -> None:
    """In the order in which they were appended, and not before the next turn."""
    stage = Stage()
    outbox, peer = stage.make()
    for frame in (b"a", b"b", b"c"):
        outbox.append(frame)
    assert peer.writes == []
    assert outbox.queued_bytes == 3
    assert len(stage.scheduled) == 1
    stage.turn()
    assert peer.writes == [b"abc"]
    assert outbox.queued_bytes == 0
    assert (stage.flusher.writes_total, stage.flusher.bytes_total) == (1, 3)


def test_many_outboxes_share_one_turn() -> None:
    """The flusher is scheduled once, and again only when there is something new."""
    stage = Stage()
    first, first_peer = stage.make()
    second, second_peer = stage.make()
    first.append(b"a")
    second.append(b"b")
    assert len(stage.scheduled) == 1
    stage.turn()
    assert (first_peer.writes, second_peer.writes) == ([b"a"], [b"b"])
    assert stage.scheduled == []
    first.append(b"c")
    stage.turn()
    assert first_peer.writes == [b"a", b"c"]


def test_too_much_for_a_turn_is_written_at_once_if_the_peer_takes_it() -> None:
    """A burst is no reason to end a session that reads."""
    stage = Stage()
    outbox, peer = stage.make(limit_bytes=10)
    outbox.append(b"12345")
    outbox.append(b"67890")
    assert peer.writes == []
    outbox.append(b"x")
    assert peer.writes == [b"1234567890x"]
    outbox.append(b"y")
    stage.turn()
    assert peer.writes == [b"1234567890x", b"y"]
    assert stage.slow == []


def test_one_frame_may_be_larger_than_the_limit() -> None:
    """The limit is on what piles up; a single message is bounded elsewhere."""
    stage = Stage()
    outbox, peer = stage.make(limit_bytes=10)
    outbox.append(b"x" * 50)
    stage.turn()
    assert peer.writes == [b"x" * 50]
    assert stage.slow == []


def test_the_first_frame_counts_as_well() -> None:
    """One that is too much for a peer that takes nothing is not kept for it."""
    stage = Stage()
    outbox, peer = stage.make(limit_bytes=10)
    peer.writable = False
    outbox.append(b"x" * 50)
    assert outbox.queued_bytes == 0
    stage.turn()
    assert stage.slow == ["x"]
    assert peer.writes == []


def test_an_unwritable_peer_gets_everything_when_it_takes_again() -> None:
    """Meanwhile nothing is written and nobody is scheduled; `flush` sends it in order."""
    stage = Stage()
    outbox, peer = stage.make()
    peer.writable = False
    outbox.append(b"a")
    stage.turn()
    outbox.append(b"b")
    assert peer.writes == []
    assert stage.scheduled == []
    peer.writable = True
    outbox.flush()
    assert peer.writes == [b"ab"]
    outbox.append(b"c")
    stage.turn()
    assert peer.writes == [b"ab", b"c"]


def test_a_slow_peer_overflows_on_a_turn_of_its_own() -> None:
    """More than the limit waits: the queue is dropped at once, its owner is told once, and not out of `append`."""
    stage = Stage()
    outbox, peer = stage.make("slow", limit_bytes=10)
    peer.writable = False
    outbox.append(b"12345")
    outbox.append(b"67890")
    assert outbox.queued_bytes == 10
    outbox.append(b"x")
    assert outbox.queued_bytes == 0
    assert stage.slow == []
    for _ in range(100):
        outbox.append(b"123")
        assert outbox.queued_bytes <= 10, "memory stays bounded until the owner reacts"
    stage.turn()
    assert stage.slow == ["slow"]
    stage.turn()
    peer.writable = True
    outbox.flush()
    assert stage.slow == ["slow"]
    assert peer.writes == []


def test_a_slow_peer_costs_the_others_nothing() -> None:
    """Its neighbours' frames leave on the same turn as ever."""
    stage = Stage()
    slow, slow_peer = stage.make("slow", limit_bytes=1)
    quick, quick_peer = stage.make("quick", limit_bytes=1)
    slow_peer.writable = False
    for frame in (b"a", b"b", b"c"):
        slow.append(frame)
        quick.append(frame)
    stage.turn()
    assert b"".join(quick_peer.writes) == b"abc"
    assert stage.slow == ["slow"]


def test_a_transport_that_breaks_costs_the_others_nothing() -> None:
    """Neither those whose frames are about to be sent with its own, nor those whose turn has not come."""

    class Broken(Peer):
        def write(self, data: Frame) -> None:
            raise ZeroDivisionError

    stage = Stage()
    before, behind = (stage.make() for _ in range(2))
    for _, peer in (before, behind):
        peer.direct = peer
    broken = Outbox(Broken(stage.clock), stage.flusher, 10, lambda: None)
    for outbox in (before[0], broken, behind[0]):
        outbox.append(b"a")
    with pytest.raises(ZeroDivisionError):
        stage.turn()
    stage.turn()
    assert [peer.writes for _, peer in (before, behind)] == [[b"a"], [b"a"]]


def test_closing_sends_what_it_can_and_drops_the_rest() -> None:
    """What the peer takes goes out at once; later frames go nowhere and are not kept."""
    stage = Stage()
    outbox, peer = stage.make()
    outbox.append(b"last words")
    outbox.close()
    assert peer.writes == [b"last words"]
    outbox.append(b"too late")
    stage.turn()
    stage.turn()
    assert peer.writes == [b"last words"]
    assert outbox.queued_bytes == 0


def test_closing_a_slow_outbox_drops_its_queue() -> None:
    """Nobody waits for a peer that does not read, and it is not called slow after its end."""
    stage = Stage()
    outbox, peer = stage.make(limit_bytes=1)
    peer.writable = False
    for frame in (b"a", b"b", b"c"):
        outbox.append(frame)
    outbox.close()
    stage.turn()
    peer.writable = True
    outbox.flush()
    assert peer.writes == []
    assert stage.slow == []
    assert outbox.queued_bytes == 0


def test_flushing_works_in_slices() -> None:
    """After a few milliseconds of writing the event loop gets its turn; then it goes on where it was."""
    stage = Stage()
    peers = []
    for _ in range(3 * WRITE_BATCH_MAX + 4):
        outbox, peer = stage.make(cost_s=SLICE_S)
        outbox.append(b"x")
        peers.append(peer)
    served = []
    while stage.scheduled:
        stage.turn()
        served.append(sum(1 for peer in peers if peer.writes))
    assert served == [WRITE_BATCH_MAX, 2 * WRITE_BATCH_MAX, 3 * WRITE_BATCH_MAX, 3 * WRITE_BATCH_MAX + 4]
    assert all(peer.writes == [b"x"] for peer in peers)


def test_what_comes_during_a_slice_waits_its_turn() -> None:
    """An outbox that is served already is put at the end: order within it stays, and nobody starves."""
    stage = Stage()
    boxes = [stage.make(cost_s=SLICE_S) for _ in range(2 * WRITE_BATCH_MAX)]
    for outbox, _ in boxes:
        outbox.append(b"1")
    stage.turn()
    for outbox, _ in boxes:
        outbox.append(b"2")
    stage.turn()
    assert [peer.writes for _, peer in boxes[:WRITE_BATCH_MAX]] == [[b"1"]] * WRITE_BATCH_MAX
    assert [peer.writes for _, peer in boxes[WRITE_BATCH_MAX:]] == [[b"12"]] * WRITE_BATCH_MAX
    stage.turn()
    assert [peer.writes for _, peer in boxes[:WRITE_BATCH_MAX]] == [[b"1", b"2"]] * WRITE_BATCH_MAX


def test_sockets_are_sent_to_in_volleys() -> None:
    """Everything of an outbox in one send, many outboxes in one go; it counts as writes all the same."""
    stage = Stage()
    boxes = [stage.make() for _ in range(WRITE_BATCH_MAX + 1)]
    for outbox, peer in boxes:
        peer.direct = peer
        outbox.append(b"a")
        outbox.append(b"b")
    stage.turn()
    assert stage.volleys == [WRITE_BATCH_MAX, 1]
    assert all(peer.writes == [b"ab"] for _, peer in boxes)
    assert all(outbox.queued_bytes == 0 for outbox, _ in boxes)
    assert (stage.flusher.writes_total, stage.flusher.bytes_total) == (WRITE_BATCH_MAX + 1, 2 * WRITE_BATCH_MAX + 2)
    stage.turn()
    assert stage.volleys == [WRITE_BATCH_MAX, 1]


def test_what_a_socket_does_not_take_is_the_transports() -> None:
    """Its beginning is not sent again, and nobody else in the volley notices."""
    stage = Stage()
    stage.takes = 3
    (long, long_peer), (short, short_peer) = stage.make(), stage.make()
    long_peer.direct, short_peer.direct = long_peer, short_peer
    long.append(b"abcdef")
    short.append(b"xy")
    stage.turn()
    assert (long_peer.writes, short_peer.writes) == ([b"abc", b"def"], [b"xy"])
    assert [bool(peer.direct) for peer in (long_peer, short_peer)] == [False, True]


def test_a_frame_is_aimed_only_past_an_empty_outbox() -> None:
    """Otherwise it would overtake; and where there is no socket it waits for the flusher like all others."""
    stage = Stage()
    write_batch = WriteBatch()
    (free, free_peer), (waiting, waiting_peer), (bound, bound_peer), (closed, _) = (stage.make() for _ in range(4))
    free_peer.direct, waiting_peer.direct = free_peer, waiting_peer
    waiting.append(b"1")
    closed.close()
    for outbox in (free, waiting, bound, closed):
        outbox.add_to(b"2", write_batch)
    assert (write_batch.transports, write_batch.frames) == ([free_peer], [b"2"])
    stage.flusher.flush_batch(write_batch)
    assert (free_peer.writes, waiting_peer.writes, bound_peer.writes) == ([b"2"], [], [])
    stage.turn()
    assert (free_peer.writes, waiting_peer.writes, bound_peer.writes) == ([b"2"], [b"12"], [b"2"])
