"""Framing, control frames, reserved bits and opcodes, over a real connection (like Autobahn 1 to 4)."""

from __future__ import annotations

import pytest

from .raw_client import BINARY, PING, PONG, TEXT, RawClient, Received, client_frame
from .server import EchoServer

SIZES = (0, 1, 125, 126, 127, 128, 65535, 65536, 200_000)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", SIZES)
def test_messages_of_all_sizes_are_echoed(peer: RawClient, opcode: int, size: int) -> None:
    """Sizes around every change in the encoding of the length."""
    payload = b"*" * size
    assert peer.exchange(client_frame(opcode, payload)) == [Received(opcode, payload)]


@pytest.mark.parametrize("chop", [1, 7, 997])
def test_any_segmentation(peer: RawClient, chop: int) -> None:
    """Frames are independent of TCP segments."""
    frames = [client_frame(TEXT, b"x" * size) for size in (0, 5, 126, 1000)]
    data = b"".join(frames)
    for at in range(0, len(data), chop):
        peer.send(data[at : at + chop])
    assert [len(frame.payload) for frame in peer.exchange()] == [0, 5, 126, 1000]


def test_all_masks_are_accepted(peer: RawClient) -> None:
    """Also a mask of zeros, at every alignment."""
    masks = [b"\x00" * 4, b"\xff" * 4, b"\x01\x02\x03\x04"]
    frames = [client_frame(BINARY, bytes(range(size)), mask=mask) for mask in masks for size in range(70)]
    assert [frame.payload for frame in peer.exchange(*frames)] == [
        bytes(range(size)) for _ in masks for size in range(70)
    ]


def test_unmasked_frame_is_a_violation(peer: RawClient) -> None:
    """RFC 6455 section 5.1: a client must mask."""
    assert peer.send_until_close(client_frame(TEXT, b"x", mask=None)) == ([], 1002)


@pytest.mark.parametrize(("size", "length_bytes"), [(0, 2), (125, 2), (5, 8), (126, 8), (65535, 8)])
def test_length_must_have_its_shortest_form(peer: RawClient, size: int, length_bytes: int) -> None:
    """RFC 6455 section 5.2: the minimal number of bytes must be used."""
    assert peer.send_until_close(client_frame(BINARY, b"x" * size, length_bytes=length_bytes)) == ([], 1002)


def test_highest_bit_of_the_length_is_a_violation(peer: RawClient) -> None:
    """RFC 6455 section 5.2: the most significant bit must be 0."""
    assert peer.send_until_close(b"\x82\xff\x80" + b"\x00" * 11) == ([], 1002)


@pytest.mark.parametrize("payload", [b"", b"hello", b"\x00\xff\xfe\xfd", b"x" * 125])
def test_pong_has_the_payload_of_the_ping(peer: RawClient, payload: bytes) -> None:
    """Empty, text or binary."""
    assert peer.exchange(client_frame(PING, payload)) == [Received(PONG, payload)]


def test_ping_byte_by_byte(peer: RawClient) -> None:
    """A control frame may be divided by TCP, but not by fragmentation."""
    for byte in client_frame(PING, b"x" * 125):
        peer.send(bytes([byte]))
    assert peer.frame() == Received(PONG, b"x" * 125)


def test_pongs_are_sent_in_order(peer: RawClient) -> None:
    """Every ping gets a pong, in the order of all frames."""
    pings = [client_frame(PING, b"%d" % n) for n in range(10)]
    frames = peer.exchange(pings[0], client_frame(TEXT, b"between"), *pings[1:])
    assert frames == [
        Received(PONG, b"0"),
        Received(TEXT, b"between"),
        *(Received(PONG, b"%d" % n) for n in range(1, 10)),
    ]


def test_pongs_reach_the_session(peer: RawClient) -> None:
    """The session sends a ping, and gets every pong, also without a ping."""
    peer.send(client_frame(TEXT, b"ping"))
    assert peer.frame() == Received(PING, b"")
    assert (
        peer.exchange(client_frame(PONG), client_frame(PONG, b"unsolicited")) == [Received(TEXT, b"pong received")] * 2
    )


@pytest.mark.parametrize("opcode", [PING, PONG, 8])
def test_large_or_fragmented_control_frames_are_violations(server: EchoServer, opcode: int) -> None:
    """RFC 6455 section 5.5: at most 125 bytes, never fragmented."""
    for bad in (client_frame(opcode, b"x" * 126), client_frame(opcode, b"", final=False)):
        with RawClient.open(server.port) as peer:
            assert peer.send_until_close(bad) == ([], 1002)


@pytest.mark.parametrize("reserved", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, 8])
def test_reserved_bits_are_violations(server: EchoServer, reserved: int, opcode: int) -> None:
    """Without an extension no reserved bit may be set. Earlier frames are handled, later frames are not."""
    with RawClient.open(server.port) as peer:
        bad = client_frame(opcode, b"\x03\xe8", reserved=reserved)
        frames = peer.send_until_close(client_frame(TEXT, b"before"), bad, client_frame(PING, b"after"))
        assert frames == ([Received(TEXT, b"before")], 1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_reserved_opcodes_are_violations(server: EchoServer, opcode: int) -> None:
    """They end the connection. Earlier frames are handled, later frames are not."""
    for payload in (b"", b"x"):
        with RawClient.open(server.port) as peer:
            bad = client_frame(opcode, payload)
            frames = peer.send_until_close(client_frame(TEXT, b"before"), bad, client_frame(PING, b"after"))
            assert frames == ([Received(TEXT, b"before")], 1002)
