"""One connection, without a network: messages and control frames of the peer, and closing by either side."""

from __future__ import annotations

import sys

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import CONNECTION_CLOSED, CONNECTION_TOO_MANY_REQUESTS, SHUTDOWN, SLOW
from beaconfire.base.loop import PacedCalls
from beaconfire.base.timers import Timers
from beaconfire.model.events import InternalError, LimitHit
from beaconfire.model.handshake import Handshake
from beaconfire.transports.port import Transport
from beaconfire.transports.websocket.connection import DISCARDED_BYTES_MAX, WebSocketConnection
from beaconfire.transports.websocket.frame_reader import OVERSIZED_BYTES
from beaconfire.transports.websocket.picows_log import PicowsLog
from beaconfire.transports.websocket.sender import ConnectionContext
from tests.fakes.transport import HANDSHAKE

from .support import RESET, ConnectionHarness, FakeStream, RecordingReceiver, RecordingSink, frame, in_loop, masked

CLOSE_1000 = b"\x88\x02\x03\xe8"


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

    def open_session(transport: Transport, handshake: Handshake) -> RecordingReceiver:
        raise RuntimeError("receiver failed")

    sink, stream = RecordingSink(), FakeStream()
    connection = WebSocketConnection(
        ConnectionContext(
            1000, 10.0, 5.0, Timers(ManualClock()), sink, PicowsLog(sink), PacedCalls(lambda call: None, lambda: 0.0)
        ),
        stream,
    )
    connection.begin(b"", open_session, HANDSHAKE)
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
