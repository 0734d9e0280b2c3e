"""Framing, control frames, reserved bits and opcodes, over a real connection (the manner of Autobahn 1 to 4)."""

from __future__ import annotations

import pytest

from .peer import BINARY, PING, PONG, TEXT, Peer, Received, client_frame
from .server import EchoServer

SIZES = (0, 1, 125, 126, 127, 128, 65535, 65536, 200_000)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", SIZES)
def test_sizes(peer: Peer, opcode: int, size: int) -> None:
    """Messages come back as they were around every change in the form of the length."""
    payload = b"*" * size
    assert peer.exchange(client_frame(opcode, payload)) == [Received(opcode, payload)]


@pytest.mark.parametrize("chop", [1, 7, 997])
def test_any_segmentation(peer: Peer, chop: int) -> None:
    """However TCP divides the bytes."""
    frames = [client_frame(TEXT, b"x" * size) for size in (0, 5, 126, 1000)]
    data = b"".join(frames)
    for at in range(0, len(data), chop):
        peer.send(data[at : at + chop])
    assert [len(frame.payload) for frame in peer.exchange()] == [0, 5, 126, 1000]


def test_masks(peer: Peer) -> None:
    """Any mask, the one of zeros too, at any alignment."""
    masks = [b"\x00" * 4, b"\xff" * 4, b"\x01\x02\x03\x04"]
    frames = [client_frame(BINARY, bytes(range(size)), mask=mask) for mask in masks for size in range(70)]
    assert [frame.payload for frame in peer.exchange(*frames)] == [
        bytes(range(size)) for _ in masks for size in range(70)
    ]


def test_unmasked(peer: Peer) -> None:
    """RFC 6455 section 5.1: a client must mask."""
    assert peer.verdict(client_frame(TEXT, b"x", mask=None)) == ([], 1002)


@pytest.mark.parametrize(("size", "length_bytes"), [(0, 2), (125, 2), (5, 8), (126, 8), (65535, 8)])
def test_length_in_too_long_a_form(peer: Peer, size: int, length_bytes: int) -> None:
    """RFC 6455 section 5.2: the minimal number of bytes must be used."""
    assert peer.verdict(client_frame(BINARY, b"x" * size, length_bytes=length_bytes)) == ([], 1002)


def test_length_with_the_highest_bit(peer: Peer) -> None:
    """RFC 6455 section 5.2: the most significant bit must be 0."""
    assert peer.verdict(b"\x82\xff\x80" + b"\x00" * 11) == ([], 1002)


@pytest.mark.parametrize("payload", [b"", b"hello", b"\x00\xff\xfe\xfd", b"x" * 125])
def test_ping(peer: Peer, payload: bytes) -> None:
    """A pong carries the ping's payload, whatever it is."""
    assert peer.exchange(client_frame(PING, payload)) == [Received(PONG, payload)]


def test_ping_byte_by_byte(peer: Peer) -> None:
    """Control frames may be divided by TCP, if not by fragmentation."""
    for byte in client_frame(PING, b"x" * 125):
        peer.send(bytes([byte]))
    assert peer.frame() == Received(PONG, b"x" * 125)


def test_pings_are_answered_in_order(peer: Peer) -> None:
    """Each, between messages, in the order of all of them."""
    pings = [client_frame(PING, b"%d" % n) for n in range(10)]
    frames = peer.exchange(pings[0], client_frame(TEXT, b"between"), *pings[1:])
    assert frames == [
        Received(PONG, b"0"),
        Received(TEXT, b"between"),
        *(Received(PONG, b"%d" % n) for n in range(1, 10)),
    ]


def test_pongs_reach_the_session(peer: Peer) -> None:
    """Its own ping goes out, and pongs come in, asked for or not."""
    peer.send(client_frame(TEXT, b"ping"))
    assert peer.frame() == Received(PING, b"")
    assert peer.exchange(client_frame(PONG), client_frame(PONG, b"unasked")) == [Received(TEXT, b"pong came")] * 2


@pytest.mark.parametrize("opcode", [PING, PONG, 8])
def test_control_frames_are_small_and_whole(server: EchoServer, opcode: int) -> None:
    """RFC 6455 section 5.5: at most 125 bytes, never fragmented."""
    for bad in (client_frame(opcode, b"x" * 126), client_frame(opcode, b"", final=False)):
        with Peer.open(server.port) as peer:
            assert peer.verdict(bad) == ([], 1002)


@pytest.mark.parametrize("reserved", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, 8])
def test_reserved_bits(server: EchoServer, reserved: int, opcode: int) -> None:
    """Without an extension no reserved bit may be set; what came before is treated, what comes after is not."""
    with Peer.open(server.port) as peer:
        bad = client_frame(opcode, b"\x03\xe8", reserved=reserved)
        frames = peer.verdict(client_frame(TEXT, b"before"), bad, client_frame(PING, b"after"))
        assert frames == ([Received(TEXT, b"before")], 1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_reserved_opcodes(server: EchoServer, opcode: int) -> None:
    """Unknown opcodes end the connection; what came before is treated, what comes after is not."""
    for payload in (b"", b"x"):
        with Peer.open(server.port) as peer:
            bad = client_frame(opcode, payload)
            frames = peer.verdict(client_frame(TEXT, b"before"), bad, client_frame(PING, b"after"))
            assert frames == ([Received(TEXT, b"before")], 1002)
