"""Frames on a connection: any cut of the bytes gives the same messages, and nothing takes more than its turn."""

from __future__ import annotations

import pytest

from beaconfire.engines.wire.frames import MESSAGES_PER_TURN, OUTPUT_BYTES_MAX

from .support import Setup, frame, message


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 64, 1000])
def test_messages_do_not_depend_on_how_their_bytes_arrive(size: int) -> None:
    """One byte at a time, several frames at once, and everything between."""
    s = Setup()
    sent = [b"", b"one", bytes(range(200)), b"x", b"y" * 900, b"z"]
    data = frame(*sent[:2]) + frame(sent[2]) + frame() + frame(*sent[3:])
    for start in range(0, len(data), size):
        s.stream.data_received(data[start : start + size])
    assert s.received == sent


def test_a_long_frame_is_joined_once() -> None:
    """It arrives in many reads; until it is complete, they are only counted."""
    s = Setup(message_bytes_max=10_000_000)
    data = frame(b"x" * 5_000_000) + frame(b"next")
    for start in range(0, len(data), 65_536):
        s.stream.data_received(data[start : start + 65_536])
    assert [len(each) for each in s.received] == [5_000_000, 4]


def test_messages_of_one_turn_are_one_frame() -> None:
    """In the order in which they were written. Nothing is written before the next turn."""
    s = Setup()
    sent = [b"%d" % number for number in range(10)]
    for each in sent:
        s.stream.write(message(each))
    assert s.transport.written == []
    assert s.stream.waiting_bytes == sum(len(message(each)) for each in sent)
    s.run_turn()
    assert s.transport.written == [frame(*sent)]
    s.stream.write(message(b"next"))
    s.run_turn()
    assert s.transport.written[1:] == [frame(b"next")]


@pytest.mark.parametrize("per_frame", [1, 7, 10_000])
def test_many_messages_take_several_turns(per_frame: int) -> None:
    """Meanwhile nothing is read. Order and number of the messages stay the same, in one frame or in many."""
    s = Setup()
    sent = [b"%d" % number for number in range(MESSAGES_PER_TURN + 100)]
    for start in range(0, len(sent), per_frame):
        s.stream.hold()
        s.stream.data_received(frame(*sent[start : start + per_frame]))
        s.stream.release()
    assert (s.received, s.transport.is_paused) == ([], True)
    s.run_turn()
    assert (len(s.received), s.transport.is_paused) == (MESSAGES_PER_TURN, True)
    s.run_turn()
    assert s.received == sent
    assert s.transport.is_paused is False


def test_slow_messages_take_several_turns() -> None:
    """After a few milliseconds, whatever their number is."""
    s = Setup()
    s.when_received = lambda data: s.clock.advance(0.001)
    s.stream.data_received(frame(*[b"%d" % number for number in range(20)]))
    assert (len(s.received), s.transport.is_paused) == (8, True)
    while s.scheduled:
        s.run_turn()
    assert s.received == [b"%d" % number for number in range(20)]


@pytest.mark.parametrize("frames", [frame(b"1", b"hold", b"2"), frame(b"1") + frame(b"hold") + frame(b"2")])
def test_a_receiver_can_hold_the_connection(frames: bytes) -> None:
    """After the message in whose call it does so, nothing is handed over until as many releases as holds."""
    s = Setup()

    def hold(data: bytes) -> None:
        if data == b"hold":
            s.stream.hold()
            s.stream.hold()

    s.when_received = hold
    s.stream.data_received(frames)
    s.stream.data_received(frame(b"3"))
    s.stream.release()
    s.run_turn()
    assert (s.received, s.transport.is_paused) == ([b"1", b"hold"], True)
    s.stream.release()
    s.run_turn()
    assert (s.received, s.transport.is_paused) == ([b"1", b"hold", b"2", b"3"], False)


def test_a_hold_that_is_released_at_once_does_not_change_the_order() -> None:
    """The release takes effect on the next turn, so no message overtakes the one that is being handled."""
    s = Setup()

    def hold(data: bytes) -> None:
        s.stream.hold()
        s.stream.release()
        assert len(s.received) == int(data)

    s.when_received = hold
    s.stream.data_received(frame(b"1", b"2") + frame(b"3") + frame(b"4"))
    while s.scheduled:
        s.run_turn()
    assert s.received == [b"1", b"2", b"3", b"4"]


def test_a_frame_that_is_too_long_ends_the_connection() -> None:
    """As soon as its length has arrived. The messages before it are handed over, those after it are not."""
    s = Setup(message_bytes_max=2_000_000)
    s.stream.data_received(frame(b"1") + frame(b"x" * 2_000_000)[:5])
    assert (s.received, s.transport.ended, s.limits) == ([b"1"], "aborted", ["hub_frame_max"])
    s.stream.data_received(frame(b"2"))
    s.stream.connection_lost(None)
    assert s.received == [b"1"]
    assert s.lost == ["a frame of 2000013 bytes, more than 2000005"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        message(b"1"),
        b"\x91\x92\x05\x01",
        b"\x91\x92\x20\x01",
        frame(b"1")[4:-1],
        frame(b"1")[4:] + b"x",
        b"\x91\x94\x20\x01\xc4\x01x" + b"\x91" * 90_000,
        b"\x91\x93\x1e\x01\xa1\xff",
        b"\x91\x93\x0b\x01\xdd\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff" + message(b"2"),
        b"\x92" + message(b"2") + b"\x92\x05\x01",
    ],
    ids=["empty", "unused", "bare", "unknown", "fields", "short", "long", "deep", "text", "huge", "many", "second"],
)
def test_garbage_ends_the_connection(data: bytes) -> None:
    """The frames before it are handed over, nothing of its own frame is, and the reason says what is wrong."""
    s = Setup()
    s.stream.data_received(frame(b"1") + len(data).to_bytes(4, "big") + data + frame(b"2"))
    assert (s.received, s.transport.ended, s.limits) == ([b"1"], "aborted", [])
    s.stream.connection_lost(None)
    assert s.lost[0].startswith("not a message: ")


def test_a_peer_that_never_reads_loses_the_connection() -> None:
    """When more than the limit waits. Nothing is written after that."""
    s = Setup()
    long = message(b"x" * 1024 * 1024)
    while not s.stream.is_closed:
        assert s.stream.waiting_bytes <= OUTPUT_BYTES_MAX
        s.stream.write(long)
    assert (s.transport.ended, s.limits) == ("aborted", ["hub_output_max"])
    written = len(s.transport.written)
    s.stream.write(long)
    s.run_turn()
    assert len(s.transport.written) == written


def test_long_messages_are_written_in_the_same_turn() -> None:
    """So that what waits is known, and a limit takes effect in time. Each has a frame of its own."""
    s = Setup()
    s.stream.write(message(b"1"))
    s.stream.write(message(b"x" * 1024 * 1024))
    assert s.transport.written == [frame(b"1"), frame(b"x" * 1024 * 1024)]
    assert s.stream.waiting_bytes == s.transport.unread_bytes
    s.stream.write(message(b"2"))
    s.run_turn()
    assert s.transport.written[2:] == [frame(b"2")]


def test_a_frame_of_several_messages_is_not_longer_than_one_message_may_be() -> None:
    """However much is written in one turn, so that the receiver takes every frame."""
    s, receiver = Setup(), Setup(message_bytes_max=70_000)
    sent = [b"x" * 70_000] * 40
    for each in sent:
        s.stream.write(message(each))
    s.run_turn()
    assert 3 <= len(s.transport.written) <= 6
    for each in s.transport.written:
        receiver.stream.data_received(each)
    assert (receiver.received, receiver.limits) == (sent, [])


def test_the_end_of_a_connection_drops_the_rest_of_a_frame() -> None:
    """A message after the one in whose call the connection has ended is not handed over."""
    s = Setup()
    s.when_received = lambda data: s.stream.close("enough")
    s.stream.data_received(frame(b"1", b"2"))
    s.stream.connection_lost(None)
    s.run_turn()
    assert s.received == [b"1"]


@pytest.mark.parametrize("holds", [True, False])
def test_nothing_is_read_while_the_peer_does_not_read(holds: bool) -> None:
    """If the end asks for this. What it has received before waits."""
    s = Setup(holds_while_full=holds)
    s.stream.pause_writing()
    s.stream.data_received(frame(b"1"))
    assert (s.received, s.transport.is_paused) == ([] if holds else [b"1"], holds)
    s.stream.resume_writing()
    s.run_turn()
    assert (s.received, s.transport.is_paused) == ([b"1"], False)


@pytest.mark.parametrize(
    ("error", "reason"), [(None, ""), (ConnectionResetError("reset"), "reset"), (BrokenPipeError(), "BrokenPipeError")]
)
def test_the_end_names_its_reason(error: OSError | None, reason: str) -> None:
    """It is empty if the peer has closed the connection."""
    s = Setup()
    assert s.is_open
    s.stream.connection_lost(error)
    assert s.lost == [reason]
    assert (s.stream.is_closed, s.stream.waiting_bytes, s.stream.extra_info("socket")) == (True, 0, None)


def test_an_end_sends_what_was_written() -> None:
    """Nothing after it is sent or handed over. Only the first end counts."""
    s = Setup()
    s.stream.write(message(b"1"))
    s.stream.end("enough")
    s.stream.write(message(b"2"))
    s.stream.data_received(frame(b"3"))
    s.stream.close("late")
    s.stream.end()
    s.run_turn()
    assert (s.transport.written, s.transport.ended, s.received) == ([frame(b"1")], "closed", [])
    s.stream.connection_lost(None)
    assert s.lost == ["enough"]


def test_what_waits_when_the_connection_ends_is_dropped() -> None:
    """Also a turn that was scheduled, and a hold that is released later."""
    s = Setup()
    s.stream.hold()
    s.stream.data_received(frame(b"1"))
    s.stream.write(message(b"2"))
    s.stream.release()
    s.stream.connection_lost(None)
    s.run_turn()
    assert (s.received, s.transport.written) == ([], [])
