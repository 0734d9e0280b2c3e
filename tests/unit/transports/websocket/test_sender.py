"""The sending half of a connection, without a network: order, congestion, timeouts, direct writes to the socket."""

from __future__ import annotations

import gc
import socket

from beaconfire.base.errors import SHUTDOWN, SLOW
from beaconfire.model.events import LimitHit
from beaconfire.transports.socket_writes import send_all

from .support import RESET, ConnectionHarness, frame, in_loop, masked


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
        large = b"x" * 1_000_000
        harness.connection.write(frame(large))
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
