"""One connection, without a network: frames from the peer and calls from the session."""

from __future__ import annotations

import gc
import socket
import sys

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import (
    CONNECTION_CLOSED,
    CONNECTION_TOO_MANY_REQUESTS,
    SHUTDOWN,
    SLOW,
)
from beaconfire.base.timers import Timers
from beaconfire.model.events import InternalError, LimitHit
from beaconfire.transports.port import Transport
from beaconfire.transports.socket_writes import send_all
from beaconfire.transports.websocket.connection import DISCARDED_BYTES_MAX, WebSocketConnection
from beaconfire.transports.websocket.frame_reader import OVERSIZED_BYTES
from beaconfire.transports.websocket.picows_log import PicowsLog
from beaconfire.transports.websocket.sender import ConnectionContext

from .support import ConnectionHarness, FakeStream, RecordingReceiver, RecordingSink, frame, in_loop, masked

CLOSE_1000 = b"\x88\x02\x03\xe8"

RESET = ["drop unsent", "abort"]
"""The calls that end a stream with a reset."""


def code_of(sent: bytes) -> int:
    """The code of the close frame at the end of the sent bytes."""
    start = sent.rindex(b"\x88")
    return int.from_bytes(sent[start + 2 : start + 4], "big")


# -- Messages --------------------------------------------------------------------------------------------------------


@in_loop
def test_messages_are_delivered_whole_and_in_order() -> None:
    """Text, binary and fragmented messages. A ping between fragments gets its pong."""
    harness = ConnectionHarness()
    harness.feed(
        masked(1, "é".encode()),
        masked(2, b"\xff"),
        masked(1, b"a", final=False),
        masked(9, b"p"),
        masked(0, b"b", final=False),
        masked(0, b"c"),
    )
    assert harness.receiver.messages == [("é".encode(), False), (b"\xff", True), (b"abc", False)]
    assert harness.sent == b"\x8a\x01p"


@in_loop
def test_valid_frames_before_a_violation_are_handled() -> None:
    """In one read: the message is delivered, pong and reply are sent, and then the close frame."""
    harness = ConnectionHarness()
    harness.receiver.react = lambda data: harness.connection.write(frame(b"reply"))
    harness.feed(masked(1, b"m"), masked(9, b"p"), masked(1, b"n"), masked(3))
    assert [data for data, _ in harness.receiver.messages] == [b"m", b"n"]
    assert harness.sent.startswith(b"reply\x8a\x01preply\x88")
    assert code_of(harness.sent) == 1002


@in_loop
def test_bytes_after_a_close_frame_are_ignored() -> None:
    """A close frame is echoed, even if invalid bytes or a second close frame follow in the same read."""
    for rest in (masked(8, b"\x03\xe8"), masked(3), masked(1, b"late"), b"\x00" * 50):
        harness = ConnectionHarness()
        harness.feed(masked(8, b"\x03\xe8bye"), rest)
        assert harness.sent == CLOSE_1000
        assert harness.receiver.messages == []
        assert harness.stream.calls[-1] == "close"


@in_loop
def test_close_codes_of_all_violations() -> None:
    """The receiver is closed when the connection is lost, not at the violation."""
    table = {
        1002: [
            masked(1, b"x", reserved=4),
            masked(2, reserved=1),
            masked(9, reserved=2),
            masked(0, b"x"),
            masked(1, b"x", final=False) + masked(1, b"x"),
            masked(9, final=False),
            masked(9, b"x" * 126),
            masked(5),
            masked(11),
            b"\x81\x01x",
            b"\x81\xfe\x00\x05",
            b"\x81\xff" + b"\x80" + b"\x00" * 7,
            masked(8, b"\x03"),
            masked(8, b"\x03\xee"),
        ],
        1007: [masked(1, b"\xff"), masked(1, b"\xc3", final=False) + masked(0), masked(8, b"\x03\xe8\xff")],
        1009: [masked(1, b"x" * 1001), masked(2, b"x" * 600, final=False) + masked(0, b"x" * 401)],
    }
    for code, cases in table.items():
        for case in cases:
            harness = ConnectionHarness()
            harness.feed(case)
            assert code_of(harness.sent) == code, case
            assert harness.receiver.messages == []
            assert harness.receiver.closed == 0
            harness.lose()
            assert harness.receiver.closed == 1


@in_loop
def test_too_large_frame_is_refused_by_its_header() -> None:
    """Before its payload is received. The limit is counted by an event."""
    harness = ConnectionHarness(limit=1000)
    harness.feed(b"\x82\xff" + (1 << 40).to_bytes(8, "big"))
    assert code_of(harness.sent) == 1009
    assert harness.sink.events == [LimitHit("websocket.message_size_limit", "")]


@in_loop
def test_message_of_the_size_limit_is_delivered() -> None:
    """Whole or in fragments."""
    harness = ConnectionHarness(limit=1000)
    harness.feed(masked(2, b"x" * 1000), masked(2, b"y" * 500, final=False), masked(0, b"y" * 500))
    assert [len(data) for data, _ in harness.receiver.messages] == [1000, 1000]


@in_loop
def test_large_read_buffer_is_replaced() -> None:
    """A large message makes the read buffer grow. The next small read replaces it, if no bytes are unread."""
    harness = ConnectionHarness(limit=100_000)
    harness.connection.read_frames(b"")
    first = harness.reader
    harness.feed(masked(2, b"x" * 60_000))
    assert harness.reader is first
    assert len(first.get_buffer(0)) > OVERSIZED_BYTES
    small = masked(1, b"small")
    harness.feed(small, small[:3])
    assert harness.reader is first
    harness.feed(small[3:-1])
    assert harness.reader is first
    harness.feed(small[-1:])
    assert harness.reader is not first
    assert len(harness.reader.get_buffer(0)) < 2048
    harness.feed(small)
    assert [len(data) for data, _ in harness.receiver.messages] == [60_000, 5, 5, 5]
    harness.lose()
    assert harness.receiver.closed == 1


@in_loop
def test_bytes_after_a_violation_are_dropped_up_to_a_limit() -> None:
    """Beyond the limit the connection is reset."""
    harness = ConnectionHarness()
    harness.feed(masked(3))
    sent = harness.sent
    harness.feed(masked(1, b"late"), masked(9), masked(8, b"\x03\xe8"))
    assert (harness.receiver.messages, harness.sent) == ([], sent)
    harness.feed(b"\x00" * DISCARDED_BYTES_MAX)
    assert harness.stream.calls[-1] == "abort"


@in_loop
def test_exception_in_the_receiver_closes_with_1011() -> None:
    """The traceback is an event, and no exception is raised."""

    def fail(data: bytes) -> None:
        raise RuntimeError("receiver failed")

    harness = ConnectionHarness()
    harness.receiver.react = fail
    harness.feed(masked(1, b"x"), masked(1, b"y"))
    assert code_of(harness.sent) == 1011
    assert len(harness.receiver.messages) == 1
    (event,) = harness.sink.events
    assert isinstance(event, InternalError)
    assert "receiver failed" in event.error


@in_loop
def test_exception_in_open_session_closes_with_1011() -> None:
    """After the handshake response. The traceback is an event."""

    def open_session(transport: Transport) -> RecordingReceiver:
        raise RuntimeError("receiver failed")

    sink, stream = RecordingSink(), FakeStream()
    connection = WebSocketConnection(
        ConnectionContext(1000, 10.0, 5.0, Timers(ManualClock()), sink, PicowsLog(sink)), stream
    )
    connection.begin(b"", open_session)
    assert code_of(bytes(stream.written)) == 1011
    assert isinstance(sink.events[0], InternalError)


@in_loop
def test_frames_without_a_message_are_reported() -> None:
    """Pings and pongs with their size, fragments with zero, so that the session can limit their rate."""
    harness = ConnectionHarness()
    harness.feed(masked(9, b"abc"), masked(10, b"d"), masked(1, b"xyz", final=False), masked(0))
    assert harness.receiver.control == [3, 1, 0]


@in_loop
def test_session_may_close_because_of_a_ping() -> None:
    """Then no pong is sent and no further frame is reported."""
    harness = ConnectionHarness()
    harness.receiver.react_to_control = lambda: harness.connection.close(CONNECTION_TOO_MANY_REQUESTS, "too many")
    harness.feed(masked(9), masked(9))
    assert harness.sent == b"\x88\x0a\x0b\xc5too many"
    assert harness.receiver.control == [0]


@in_loop
def test_pongs_are_reported() -> None:
    """With or without a preceding ping."""
    harness = ConnectionHarness()
    harness.connection.ping()
    assert harness.sent == b"\x89\x00"
    harness.feed(masked(10, b"payload"))
    assert harness.receiver.pongs == 1


# -- Writing ---------------------------------------------------------------------------------------------------------


@in_loop
def test_frames_are_written_immediately_in_order() -> None:
    """A write does not wait for a later one."""
    harness = ConnectionHarness()
    harness.connection.write(frame(b"ab"))
    harness.connection.write(frame(b"c"))
    assert harness.sent == b"abc"


@in_loop
def test_writable_is_true_while_the_buffer_is_empty() -> None:
    """Congestion changes `writable` and `buffered_bytes`. Its end calls `on_writable` once; bytes stay in order."""
    harness = ConnectionHarness()
    harness.stream.takes = 2
    harness.connection.write(frame(b"abcd"))
    assert (harness.connection.writable, harness.connection.buffered_bytes) == (False, 2)
    harness.connection.write(frame(b"ef"))
    harness.stream.take(3)
    assert (harness.connection.writable, harness.receiver.writable) == (False, 0)
    harness.stream.take(100)
    assert (harness.connection.writable, harness.receiver.writable) == (True, 1)
    assert harness.sent == b"abcdef"


@in_loop
def test_pings_of_a_peer_that_reads_nothing_use_no_memory() -> None:
    """During congestion only the latest ping is kept; its pong is sent afterwards."""
    harness = ConnectionHarness()
    harness.stream.takes = 0
    harness.connection.write(frame(b"x"))
    for n in range(100):
        harness.feed(masked(9, b"%d" % n))
    assert harness.connection.buffered_bytes == 1
    harness.stream.take(1000)
    assert harness.sent == b"x\x8a\x0299"
    assert harness.receiver.writable == 1


@in_loop
def test_write_timeout_resets_the_connection() -> None:
    """If the peer takes no byte for the write timeout. Any progress restarts the timeout."""
    harness = ConnectionHarness()
    harness.stream.takes = 0
    harness.connection.write(frame(b"x" * 100))
    harness.advance(9)
    harness.stream.take(1)
    harness.advance(1)
    assert "abort" not in harness.stream.calls
    harness.advance(9.9)
    assert "abort" not in harness.stream.calls
    harness.advance(0.1)
    assert harness.stream.calls[-2:] == RESET
    assert harness.sink.events == [LimitHit("websocket.write_timeout", "")]
    assert harness.receiver.closed_with == 3009
    harness.lose()
    assert harness.receiver.closed == 1


@in_loop
def test_repeated_congestion_makes_one_timer() -> None:
    """Short congestions do not add up to a write timeout."""
    harness = ConnectionHarness()
    for _ in range(50):
        harness.stream.takes = 0
        harness.connection.write(frame(b"x"))
        harness.stream.take(1)
        harness.advance(1)
    assert len(harness.timers) <= 1
    assert "abort" not in harness.stream.calls


@in_loop
def test_nothing_is_written_after_a_close_or_a_loss() -> None:
    """The file descriptor of a lost connection may belong to another connection."""
    harness = ConnectionHarness()
    harness.connection.close(SHUTDOWN, "shutdown")
    sent = harness.sent
    harness.connection.write(frame(b"x"))
    harness.connection.ping()
    harness.connection.close(SLOW, "slow")
    harness.feed(masked(9, b"p"))
    assert harness.sent == sent
    harness.lose()
    harness.connection.write(frame(b"x"))
    harness.connection.ping()
    harness.connection.close(SLOW, "slow")
    assert harness.sent == sent
    assert (harness.connection.writable, harness.connection.buffered_bytes) == (False, 0)


@in_loop
def test_frames_are_sent_directly_to_the_socket() -> None:
    """Without TLS. The transport gets the bytes that the socket does not take, in order."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        harness = ConnectionHarness(descriptor=theirs.fileno())
        assert ours.recv(100) == b"101\r\n\r\n"
        harness.connection.write(frame(b"abc"))
        assert (ours.recv(100), bytes(harness.stream.written)) == (b"abc", b"")
        harness.stream.takes = 0
        harness.connection.write(frame(b"x" * 1_000_000))
        at_once = len(ours.recv(2_000_000))
        while at_once < 1_000_000 and (more := _receive_now(ours)):
            at_once += more
        assert 0 < at_once < 1_000_000
        harness.connection.write(frame(b"later"))  # must not overtake the rest, although the socket is empty now
        harness.stream.take(2_000_000)
        assert len(harness.stream.written) == 1_000_000 - at_once + len(b"later")
        assert harness.stream.written.endswith(b"xlater")
        harness.connection.write(frame(b"direct"))
        assert ours.recv(100) == b"direct"
        harness.lose()


@in_loop
def test_rest_of_a_frame_is_not_copied() -> None:
    """All subscribers share a frame; a slow peer must not cause a copy."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        harness = ConnectionHarness(descriptor=theirs.fileno())
        written: list[object] = []
        harness.stream.write = written.append  # type: ignore[assignment, method-assign]
        large = frame(b"x" * 1_000_000)
        harness.connection.write(large)
        harness.connection.write_rest(large, 999_999)
        assert [isinstance(data, memoryview) and data.obj is large for data in written] == [True, True]
        harness.lose()


@in_loop
def test_direct_socket_is_set_while_open_and_not_congested() -> None:
    """The transport gets the bytes that the socket did not take, and then all later bytes, in order."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        harness = ConnectionHarness(descriptor=theirs.fileno())
        assert ours.recv(100) == b"101\r\n\r\n"
        assert send_all([harness.connection], [b"abc"]) == [3]
        assert ours.recv(100) == b"abc"
        harness.stream.takes = 0
        harness.connection.write_rest(b"abcdef", 4)
        assert not has_direct(harness)
        harness.connection.write(frame(b"g"))
        harness.stream.take(100)
        assert has_direct(harness)
        assert bytes(harness.stream.written) == b"efg"
        harness.connection.close(SHUTDOWN, "shutdown")
        assert not has_direct(harness)
        written = bytes(harness.stream.written)
        harness.connection.write_rest(b"never", 1)
        assert bytes(harness.stream.written) == written
        harness.lose()


@in_loop
def test_tls_has_no_direct_socket() -> None:
    """Bytes on the socket must be encrypted."""
    assert ConnectionHarness().connection.direct is None


def has_direct(harness: ConnectionHarness) -> bool:
    return harness.connection.direct is not None


def _receive_now(receiver: socket.socket) -> int:
    """Receives without waiting and returns the number of bytes."""
    try:
        return len(receiver.recv(2_000_000, socket.MSG_DONTWAIT))
    except BlockingIOError:
        return 0


@in_loop
def test_write_buffer_limits() -> None:
    """Zero, so that `writable` is exact. One under TLS, where zero would mean a full buffer at all times."""
    assert ConnectionHarness().stream.calls[0] == "limits 1 0"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        harness = ConnectionHarness(descriptor=theirs.fileno())
        assert harness.stream.calls[0] == "limits 0 0"
        harness.lose()


@in_loop
def test_file_descriptor_is_released_after_a_loss() -> None:
    """It may belong to another connection then: the connection must neither write to it nor close it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        harness = ConnectionHarness(descriptor=theirs.fileno())
        harness.lose()
        harness.connection.write(frame(b"never"))
        del harness
        gc.collect()
        theirs.send(b"still open")
        assert ours.recv(100) == b"101\r\n\r\nstill open"


# -- Closing ---------------------------------------------------------------------------------------------------------


@in_loop
def test_close_waits_for_the_close_frame_of_the_peer() -> None:
    """Code and reason are sent, later messages are dropped, and the peer's close frame closes the stream."""
    harness = ConnectionHarness()
    harness.connection.close(SHUTDOWN, "shutdown")
    assert harness.sent == b"\x88\x0a\x0b\xb9shutdown"
    harness.feed(masked(1, b"late"), masked(1, b"more", final=False))
    assert (harness.receiver.messages, harness.stream.calls[1:]) == ([], [])
    harness.feed(masked(8, b"\x0b\xb9"))
    assert harness.stream.calls[1:] == ["close"]
    assert harness.receiver.closed == 0
    harness.lose()
    assert harness.receiver.closed == 1
    harness.advance(100)
    assert (harness.stream.calls[1:], harness.sink.events) == (["close"], [])


@in_loop
def test_close_timeout_resets_the_connection() -> None:
    """If the peer sends no close frame, with or without unsent data."""
    for takes in (1 << 30, 0):
        harness = ConnectionHarness()
        harness.stream.takes = takes
        harness.connection.write(frame(b"x" * 100))
        harness.connection.close(SLOW, "slow")
        harness.advance(4.9)
        assert ("abort" in harness.stream.calls, harness.sink.events) == (False, [])
        harness.advance(0.1)
        assert harness.stream.calls[-2:] == RESET
        assert harness.sink.events == [LimitHit("websocket.close_timeout", "")]


@in_loop
def test_reset_unread_resets_only_connections_with_unsent_data() -> None:
    """A closing connection is in `closing` until it is lost."""
    for takes in (1 << 30, 0):
        harness = ConnectionHarness()
        harness.stream.takes = takes
        harness.connection.write(frame(b"x" * 100))
        assert harness.context.closing == set()
        harness.connection.close(SLOW, "slow")
        assert harness.context.closing == {harness.connection}
        harness.connection.reset_unread()
        assert harness.stream.calls[1:] == ([] if takes else RESET)
        harness.lose()
        assert harness.context.closing == set()


@in_loop
def test_close_resumes_reading() -> None:
    """A connection with paused reading must receive the peer's close frame."""
    harness = ConnectionHarness()
    harness.connection.pause_reading()
    harness.connection.pause_reading()
    harness.connection.close(SHUTDOWN, "")
    harness.connection.pause_reading()
    assert harness.stream.calls[1:] == ["pause", "resume"]


@in_loop
def test_pausing_and_resuming_are_idempotent() -> None:
    """Only changes are passed to the stream."""
    harness = ConnectionHarness()
    harness.connection.resume_reading()
    for _ in range(2):
        harness.connection.pause_reading()
    for _ in range(2):
        harness.connection.resume_reading()
    assert harness.stream.calls[1:] == ["pause", "resume"]


@in_loop
def test_code_3000_sends_no_close_frame() -> None:
    """The stream is flushed and closed."""
    harness = ConnectionHarness()
    harness.connection.write(frame(b"x"))
    harness.connection.close(CONNECTION_CLOSED, "connection closed")
    assert harness.sent == b"x"
    assert harness.stream.calls[-1] == "close"


@in_loop
def test_close_frame_of_the_peer_is_echoed() -> None:
    """The stream is closed at once, and reset after the close timeout if it cannot be flushed."""
    harness = ConnectionHarness()
    harness.feed(masked(8, b"\x0f\xa0bye"))
    assert harness.sent == b"\x88\x02\x0f\xa0"
    assert harness.stream.calls[-1] == "close"
    # Later than our own timer, so that the reset is counted.
    assert harness.stream.user_timeout_ms == (6000 if sys.platform == "linux" else 0)
    harness.advance(5)
    assert harness.stream.calls[-1] == "abort"


@in_loop
def test_lost_connection_closes_the_receiver_once() -> None:
    """No timer or callback remains for the connection."""
    harness = ConnectionHarness()
    harness.stream.takes = 0
    harness.connection.write(frame(b"x"))
    harness.lose()
    assert harness.receiver.closed == 1
    harness.advance(100)
    assert (harness.receiver.closed, len(harness.timers)) == (1, 0)
    assert "abort" not in harness.stream.calls
