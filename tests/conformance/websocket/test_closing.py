"""The closing handshake and its codes (the manner of Autobahn 7)."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from .conftest import LONG_TIMEOUT_S
from .peer import CLOSE, CONTINUATION, PING, TEXT, Peer, Received, client_frame, close_frame
from .server import EchoServer

ECHOED = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]


def closing(code: int) -> Received:
    return Received(CLOSE, struct.pack("!H", code))


@pytest.mark.parametrize("code", ECHOED)
def test_codes_that_are_echoed(peer: Peer, code: int) -> None:
    """The peer's code comes back, and then the connection ends."""
    peer.send(close_frame(code, b"because"))
    assert peer.frames_until_end() == [closing(code)]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_codes_that_must_not_travel(peer: Peer, code: int) -> None:
    """Reserved, local or unassigned: 1002."""
    assert peer.verdict(close_frame(code)) == ([], 1002)


def test_close_without_code(peer: Peer) -> None:
    """Nothing answers nothing."""
    peer.send(client_frame(CLOSE))
    assert peer.frames_until_end() == [Received(CLOSE, b"")]


def test_close_with_half_a_code(peer: Peer) -> None:
    """One byte is no code: 1002."""
    assert peer.verdict(client_frame(CLOSE, b"\x03")) == ([], 1002)


def test_close_with_the_longest_reason(peer: Peer) -> None:
    """125 bytes in all."""
    peer.send(close_frame(1000, b"*" * 123))
    assert peer.frames_until_end() == [closing(1000)]


def test_close_with_a_reason_that_is_no_text(peer: Peer) -> None:
    """The reason must be UTF-8: 1007."""
    assert peer.verdict(close_frame(1000, b"\xce\xba\xed\xa0\x80")) == ([], 1007)


@pytest.mark.parametrize(
    "late",
    [
        close_frame(1001),
        client_frame(PING, b"late"),
        client_frame(TEXT, b"late"),
        client_frame(CONTINUATION),
        client_frame(15, b"late"),
        b"\x00" * 100,
        client_frame(TEXT, b"x" * 250_000),
    ],
)
def test_nothing_after_a_close_frame_is_looked_at(peer: Peer, late: bytes) -> None:
    """The echo is all there is, whatever follows."""
    peer.send(close_frame(1000), late)
    assert peer.frames_until_end() == [closing(1000)]


def test_server_closes(server_without_timeouts: EchoServer) -> None:
    """Code and reason arrive; the answer ends the connection without waiting; late messages are not echoed."""
    with Peer.open(server_without_timeouts.port) as peer:
        begun = time.monotonic()
        peer.send(client_frame(TEXT, b"close"), client_frame(TEXT, b"late"), client_frame(PING, b"late"))
        assert peer.frame() == Received(CLOSE, struct.pack("!H", 3001) + b"shutdown")
        peer.send(close_frame(3001))
        assert peer.frames_until_end() == []
        assert time.monotonic() - begun < LONG_TIMEOUT_S / 2, "the end has waited for the close timeout"
        server_without_timeouts.wait_until(lambda: not server_without_timeouts.live)


def test_server_does_not_wait_for_ever(server: EchoServer, peer: Peer) -> None:
    """A peer that does not answer the close frame is cut after the close timeout (half a second here)."""
    begun = time.monotonic()
    peer.send(client_frame(TEXT, b"close"))
    assert peer.frames_until_end()[0].opcode == CLOSE
    assert 0.4 < time.monotonic() - begun < 5
    server.wait_until(lambda: not server.live)


def test_peer_vanishes(server: EchoServer, peer: Peer) -> None:
    """Without a close frame, with or without a reset: the session hears of it."""
    server.wait_until(lambda: len(server.live) == 1)
    peer.socket.close()
    server.wait_until(lambda: not server.live)
    other = Peer.open(server.port)
    server.wait_until(lambda: len(server.live) == 1)
    other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.socket.close()
    server.wait_until(lambda: not server.live)


def test_violation_is_told_even_to_a_peer_that_is_still_sending(peer: Peer) -> None:
    """The close frame is not lost to a reset, although megabytes are still on their way."""
    head = b"\x82\xff" + (50_000_000).to_bytes(8, "big") + b"mask"
    assert peer.verdict(head, b"x" * 10_000_000) == ([], 1009)


def test_violation_without_goodbye(server: EchoServer, peer: Peer) -> None:
    """A peer that broke the protocol and stays is cut after the close timeout."""
    peer.send(client_frame(3))
    assert peer.frame().opcode == CLOSE
    server.wait_until(lambda: not server.live)
