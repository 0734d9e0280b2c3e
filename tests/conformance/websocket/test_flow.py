"""Flow control: slow readers and floods."""

from __future__ import annotations

from beaconfire.model.events import LimitHit

from .raw_client import BINARY, PING, PONG, TEXT, RawClient, Received, client_frame
from .server import CONTROL_FRAMES_MAX, EchoServer


def test_slow_reader_gets_all_data_in_order(server_without_timeouts: EchoServer) -> None:
    """Twenty megabytes to a peer that reads late. The session is informed when the transport is writable again."""
    server = server_without_timeouts
    server.writable.clear()
    with RawClient.open(server.port, receive_buffer=4096) as peer:
        peer.send(client_frame(TEXT, b"flood"), client_frame(TEXT, b"last"))
        server.wait_until(lambda: any(not echo.transport.writable for echo in server.live))
        frames = [peer.frame() for _ in range(21)]
        assert [len(frame.payload) for frame in frames] == [1_000_000] * 20 + [4]
        assert frames[-1] == Received(TEXT, b"last")
        assert server.writable.wait(10)


def test_peer_that_reads_nothing_is_disconnected(server: EchoServer) -> None:
    """After the write timeout (one second here). Pings from the peer neither prevent that nor fill memory."""
    server.events.clear()
    with RawClient.open(server.port, receive_buffer=4096) as peer:
        peer.send(client_frame(TEXT, b"flood"))
        server.wait_until(lambda: any(not echo.transport.writable for echo in server.live))
        (echo,) = server.call(lambda: list(server.live))
        before = server.call(lambda: echo.transport.buffered_bytes)
        peer.send(*[client_frame(PING, b"x" * 125)] * 1000)
        assert server.call(lambda: echo.transport.buffered_bytes) <= before
        server.wait_until(lambda: not server.live)
    assert LimitHit("websocket.write_timeout", "") in server.events


def test_close_does_not_wait_for_a_slow_peer(server: EchoServer) -> None:
    """A peer that reads nothing is disconnected after the close timeout."""
    with RawClient.open(server.port, receive_buffer=4096) as peer:
        peer.send(client_frame(TEXT, b"flood"), client_frame(TEXT, b"close"))
        server.wait_until(lambda: not server.live)


def test_paused_reading_delivers_nothing(server: EchoServer, peer: RawClient) -> None:
    """After reading is resumed, everything is delivered."""
    server.wait_until(lambda: len(server.live) == 1)
    (echo,) = server.call(lambda: list(server.live))
    server.call(echo.transport.pause_reading)
    peer.send(client_frame(TEXT, b"one"), client_frame(TEXT, b"two"))
    server.call(echo.transport.ping)
    assert peer.frame() == Received(PING, b"")
    server.call(echo.transport.resume_reading)
    assert [peer.frame().payload, peer.frame().payload] == [b"one", b"two"]


def test_flood_of_pings_is_limited_by_the_session(peer: RawClient) -> None:
    """The session gets every ping and closes with 3013."""
    frames, code = peer.send_until_close(*[client_frame(PING)] * 20_000)
    assert code == 3013
    assert frames == [Received(PONG, b"")] * CONTROL_FRAMES_MAX


def test_many_messages_in_one_segment(peer: RawClient) -> None:
    """More bytes than the read buffer has; all messages arrive in order."""
    count = 20_000
    frames = peer.exchange(*[client_frame(BINARY, b"%d" % n) for n in range(count)])
    assert [frame.payload for frame in frames] == [b"%d" % n for n in range(count)]


def test_large_and_small_messages_alternate(peer: RawClient) -> None:
    """The server replaces its read buffer as message sizes change, and loses no byte."""
    for size in (10, 70_000, 10, 10, 200_000, 3, 500, 1, 30_000, 2) * 3:
        peer.send(client_frame(BINARY, b"x" * size))
        assert peer.frame() == Received(BINARY, b"x" * size)
    assert peer.exchange(client_frame(TEXT, b"end")) == [Received(TEXT, b"end")]
