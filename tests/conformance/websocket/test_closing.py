"""The closing handshake and its codes (like Autobahn 7)."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from .conftest import LONG_TIMEOUT_S
from .raw_client import CLOSE, CONTINUATION, PING, TEXT, RawClient, Received, client_frame, close_frame
from .server import EchoServer

ECHOED = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]


def closing(code: int) -> Received:
    return Received(CLOSE, struct.pack("!H", code))


@pytest.mark.parametrize("code", ECHOED)
def test_valid_close_codes_are_echoed(peer: RawClient, code: int) -> None:
    """The response contains the peer's code, and then the connection ends."""
    peer.send(close_frame(code, b"because"))
    assert peer.frames_until_end() == [closing(code)]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_invalid_close_codes_are_violations(peer: RawClient, code: int) -> None:
    """Reserved, local or unassigned: 1002."""
    assert peer.send_until_close(close_frame(code)) == ([], 1002)


def test_close_frame_without_code_gets_one_without_code(peer: RawClient) -> None:
    """The response has no code either."""
    peer.send(client_frame(CLOSE))
    assert peer.frames_until_end() == [Received(CLOSE, b"")]


def test_close_frame_with_one_byte_is_a_violation(peer: RawClient) -> None:
    """A code has two bytes: 1002."""
    assert peer.send_until_close(client_frame(CLOSE, b"\x03")) == ([], 1002)


def test_longest_close_reason_is_accepted(peer: RawClient) -> None:
    """The payload has 125 bytes."""
    peer.send(close_frame(1000, b"*" * 123))
    assert peer.frames_until_end() == [closing(1000)]


def test_close_reason_must_be_utf8(peer: RawClient) -> None:
    """An invalid reason is answered with 1007."""
    assert peer.send_until_close(close_frame(1000, b"\xce\xba\xed\xa0\x80")) == ([], 1007)


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
def test_frames_after_a_close_frame_are_ignored(peer: RawClient, late: bytes) -> None:
    """The server sends only the echo of the close frame."""
    peer.send(close_frame(1000), late)
    assert peer.frames_until_end() == [closing(1000)]


def test_server_sends_code_and_reason(server_without_timeouts: EchoServer) -> None:
    """The peer's close frame ends the connection at once. Messages after the server's close frame are not echoed."""
    with RawClient.open(server_without_timeouts.port) as peer:
        started_s = time.monotonic()
        peer.send(client_frame(TEXT, b"close"), client_frame(TEXT, b"late"), client_frame(PING, b"late"))
        assert peer.frame() == Received(CLOSE, struct.pack("!H", 3001) + b"shutdown")
        peer.send(close_frame(3001))
        assert peer.frames_until_end() == []
        assert time.monotonic() - started_s < LONG_TIMEOUT_S / 2, "the server has waited for the close timeout"
        server_without_timeouts.wait_until(lambda: not server_without_timeouts.live)


def test_missing_close_frame_ends_in_the_close_timeout(server: EchoServer, peer: RawClient) -> None:
    """A peer that sends no close frame is disconnected after the close timeout (half a second here)."""
    started_s = time.monotonic()
    peer.send(client_frame(TEXT, b"close"))
    assert peer.frames_until_end()[0].opcode == CLOSE
    assert 0.4 < time.monotonic() - started_s < 5
    server.wait_until(lambda: not server.live)


def test_lost_connection_ends_the_session(server: EchoServer, peer: RawClient) -> None:
    """Without a close frame, with or without a reset."""
    server.wait_until(lambda: len(server.live) == 1)
    peer.socket.close()
    server.wait_until(lambda: not server.live)
    other = RawClient.open(server.port)
    server.wait_until(lambda: len(server.live) == 1)
    other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other.socket.close()
    server.wait_until(lambda: not server.live)


def test_close_frame_reaches_a_peer_that_is_still_sending(peer: RawClient) -> None:
    """No reset discards the close frame, although megabytes from the peer are still in transit."""
    head = b"\x82\xff" + (50_000_000).to_bytes(8, "big") + b"mask"
    assert peer.send_until_close(head, b"x" * 10_000_000) == ([], 1009)


def test_peer_that_stays_after_a_violation_is_disconnected(server: EchoServer, peer: RawClient) -> None:
    """After the close timeout."""
    peer.send(client_frame(3))
    assert peer.frame().opcode == CLOSE
    server.wait_until(lambda: not server.live)
