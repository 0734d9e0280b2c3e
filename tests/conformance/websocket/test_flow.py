"""Slow readers, floods, and what they cost the server."""

from __future__ import annotations

from beaconfire.model.events import LimitHit

from .peer import BINARY, PING, PONG, TEXT, Peer, Received, client_frame
from .server import CONTROL_FRAMES_MAX, EchoServer


def test_more_than_buffers_hold(server_without_timeouts: EchoServer) -> None:
    """Twenty megabytes to a peer that reads late: all arrive in order, and the session is told of the room."""
    server = server_without_timeouts
    server.writable.clear()
    with Peer.open(server.port, receive_buffer=4096) as peer:
        peer.send(client_frame(TEXT, b"flood"), client_frame(TEXT, b"last"))
        server.wait_until(lambda: any(not echo.transport.writable for echo in server.live))
        frames = [peer.frame() for _ in range(21)]
        assert [len(frame.payload) for frame in frames] == [1_000_000] * 20 + [4]
        assert frames[-1] == Received(TEXT, b"last")
        assert server.writable.wait(10)


def test_a_peer_that_reads_nothing_is_cut(server: EchoServer) -> None:
    """After the write timeout (one second here); pings of its own do not keep it alive or fill memory."""
    server.events.clear()
    with Peer.open(server.port, receive_buffer=4096) as peer:
        peer.send(client_frame(TEXT, b"flood"))
        server.wait_until(lambda: any(not echo.transport.writable for echo in server.live))
        (echo,) = server.call(lambda: list(server.live))
        before = server.call(lambda: echo.transport.buffered_bytes)
        peer.send(*[client_frame(PING, b"x" * 125)] * 1000)
        assert server.call(lambda: echo.transport.buffered_bytes) <= before
        server.wait_until(lambda: not server.live)
    assert LimitHit("websocket.write_timeout", "") in server.events


def test_a_slow_peer_can_be_closed(server: EchoServer) -> None:
    """Closing does not wait for a peer that reads nothing: cut after the close timeout."""
    with Peer.open(server.port, receive_buffer=4096) as peer:
        peer.send(client_frame(TEXT, b"flood"), client_frame(TEXT, b"close"))
        server.wait_until(lambda: not server.live)


def test_paused_reading(server: EchoServer, peer: Peer) -> None:
    """While reading is paused nothing is delivered, and afterwards everything."""
    server.wait_until(lambda: len(server.live) == 1)
    (echo,) = server.call(lambda: list(server.live))
    server.call(echo.transport.pause_reading)
    peer.send(client_frame(TEXT, b"one"), client_frame(TEXT, b"two"))
    server.call(echo.transport.ping)
    assert peer.frame() == Received(PING, b"")
    server.call(echo.transport.resume_reading)
    assert [peer.frame().payload, peer.frame().payload] == [b"one", b"two"]


def test_flood_of_pings(peer: Peer) -> None:
    """The session sees every one of them, and ends it: 3013."""
    frames, code = peer.verdict(*[client_frame(PING)] * 20_000)
    assert code == 3013
    assert frames == [Received(PONG, b"")] * CONTROL_FRAMES_MAX


def test_many_messages_in_one_segment(peer: Peer) -> None:
    """More than the read buffer holds, all of them in order."""
    count = 20_000
    frames = peer.exchange(*[client_frame(BINARY, b"%d" % n) for n in range(count)])
    assert [frame.payload for frame in frames] == [b"%d" % n for n in range(count)]


def test_large_and_small_in_turn(peer: Peer) -> None:
    """Read buffers come and go with the size of the messages, without a byte lost."""
    for size in (10, 70_000, 10, 10, 200_000, 3, 500, 1, 30_000, 2) * 3:
        peer.send(client_frame(BINARY, b"x" * size))
        assert peer.frame() == Received(BINARY, b"x" * size)
    assert peer.exchange(client_frame(TEXT, b"end")) == [Received(TEXT, b"end")]
