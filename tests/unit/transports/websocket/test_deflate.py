"""Compression of frames, and inflating with a limit."""

from __future__ import annotations

import os
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beaconfire.protocols.port import Payload
from beaconfire.transports.websocket.closing import ProtocolViolation
from beaconfire.transports.websocket.deflate import (
    COMPRESSED_BYTES_MAX,
    CompressedWire,
    Inflater,
    compressed_size_limit,
    deflate,
)
from beaconfire.transports.websocket_messages import JOINED_BYTES_MAX

from .test_framing import StubCodec

LIMIT = 65536
LINES = CompressedWire(StubCodec(b"\n"), 128, 1)
SINGLES = CompressedWire(StubCodec(None), 128, 1)
RFC_HELLO = bytes.fromhex("f248cdc9c90700")
"""RFC 7692 section 7.2.3.1: "Hello" in one block."""


def messages(frames: bytes) -> list[tuple[int, bytes]]:
    """The first byte and the inflated payload of every frame."""
    found = []
    while frames:
        size, start = frames[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(frames[2:start], "big")
        payload = frames[start : start + size]
        assert len(payload) == size
        if frames[0] & 0x40:
            payload = zlib.decompressobj(-12).decompress(payload + b"\x00\x00\xff\xff")
        found.append((frames[0], payload))
        frames = frames[start + size :]
    return found


@pytest.mark.parametrize(("size", "head"), [(0, 0x81), (127, 0x81), (128, 0xC1), (3000, 0xC1), (70_000, 0xC1)])
def test_small_messages_are_not_compressed(size: int, head: int) -> None:
    """Reserved bit 1 marks the compressed messages."""
    for wire in (LINES, SINGLES):
        assert messages(wire.pack([Payload(b"x" * size)])) == [(head, b"x" * size)]
    assert messages(SINGLES.pack([Payload(b"x" * size, True)])) == [(head + 1, b"x" * size)]


def test_incompressible_messages_are_not_compressed() -> None:
    """For example random bytes."""
    noise = os.urandom(1000)
    assert messages(LINES.pack([Payload(noise, True)])) == [(0x82, noise)]


def test_very_large_messages_are_not_compressed() -> None:
    """Compressing them would block the event loop for too long."""
    for size, head in ((COMPRESSED_BYTES_MAX, 0xC1), (COMPRESSED_BYTES_MAX + 1, 0x81)):
        assert messages(SINGLES.pack([Payload(b"x" * size)])) == [(head, b"x" * size)]


def test_joined_messages_are_compressed_as_one() -> None:
    """Also small ones that are large enough together. A joined message has a maximum size."""
    small = [Payload(b"%03d" % number) for number in range(100)]
    assert messages(LINES.pack(small)) == [(0xC1, b"\n".join(data for data, _ in small))]
    assert [head for head, _ in messages(SINGLES.pack(small))] == [0x81] * 100
    half = Payload(b"y" * (JOINED_BYTES_MAX // 2))
    assert [len(data) for _, data in messages(LINES.pack([half] * 3))] == [len(half.data)] * 3


def inflate_with(window_bits: int, payload: bytes) -> bytes:
    """Inflates as a receiver with exactly this window: raises zlib.error for references beyond it.

    In small steps, because within one step zlib can use its output instead of the window.
    """
    decompressor = zlib.decompressobj(-window_bits)
    rest, inflated = payload + b"\x00\x00\xff\xff", b""
    while piece := decompressor.decompress(rest, 64):
        inflated += piece
        rest = decompressor.unconsumed_tail
    return inflated


@pytest.mark.parametrize("window_bits", [9, 10, 11, 12])
@pytest.mark.parametrize("level", [1, 9])
def test_references_stay_within_the_window(window_bits: int, level: int) -> None:
    """For a message much larger than the window, with repetitions at small and large distances."""
    block = os.urandom(2000)
    data = b"".join(block + b"near and far " * 20 for _ in range(20))
    wire = CompressedWire(StubCodec(None), 128, level, window_bits)
    frame = wire.pack([Payload(data, True)])
    assert frame[:2] == b"\xc2\x7e"
    assert len(frame) < len(data)
    assert inflate_with(window_bits, frame[4:]) == data


def test_inflate_with_detects_a_larger_window() -> None:
    """Checks the helper of the previous test."""
    block = os.urandom(2000)
    with pytest.raises(zlib.error, match="too far back"):
        inflate_with(9, deflate(block * 3, 1, 12))


def test_compression_level_is_used() -> None:
    """A higher level makes compressible messages smaller."""
    text = b"".join(b"%d:%d," % (number, number * number % 97) for number in range(2000))
    assert len(deflate(text, 9)) < len(deflate(text, 1))
    assert CompressedWire(StubCodec(None), 0, 9).pack([Payload(text)])[4:] == deflate(text, 9)


@pytest.mark.parametrize(
    "compressed",
    [
        RFC_HELLO,
        bytes.fromhex("000500faff48656c6c6f00"),  # 7.2.3.3: without compression
        bytes.fromhex("f348cdc9c9070000"),  # 7.2.3.4: with a final block
        bytes.fromhex("f248050000 00ffffcac9c90700".replace(" ", "")),  # 7.2.3.5: two blocks
        bytes.fromhex("f348cdc9c90700"),  # a final block without an empty block after it
    ],
)
@pytest.mark.parametrize("step", [1, 3, 100])
def test_examples_of_the_rfc_are_inflated(compressed: bytes, step: int) -> None:
    """Whole and in fragments."""
    inflater = Inflater(LIMIT)
    pieces = [compressed[at : at + step] for at in range(0, len(compressed), step)]
    inflated = b"".join(inflater.add(piece, False) for piece in pieces[:-1])
    assert inflated + inflater.add(pieces[-1], True) == b"Hello"


@pytest.mark.parametrize("wbits", range(9, 16))
@pytest.mark.parametrize("level", [0, 1, 9])
def test_all_windows_and_levels_are_inflated(wbits: int, level: int) -> None:
    """Up to exactly the limit, also incompressible data, whose compressed size exceeds the limit."""
    for data in (b"", b"x" * LIMIT, os.urandom(LIMIT)):
        compressor = zlib.compressobj(level, zlib.DEFLATED, -wbits)
        compressed = (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        assert len(compressed) <= compressed_size_limit(LIMIT)
        assert Inflater(LIMIT).add(compressed, True) == data


@pytest.mark.parametrize(
    "invalid",
    [
        b"",
        b"Hello",
        b"\xff" * 100,
        RFC_HELLO[:-1],
        RFC_HELLO[:-3],
        RFC_HELLO + b"\x00",
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00\x00",  # more than one empty block after a final block
        b"\xf3\x48\xcd\xc9\xc9\x07\x00" + RFC_HELLO,
        deflate(b"some text and the same text again", 1)[:-8],
    ],
)
def test_invalid_data_is_a_violation(invalid: bytes) -> None:
    """Malformed, truncated or followed by other bytes: 1007."""
    with pytest.raises(ProtocolViolation) as caught:
        Inflater(LIMIT).add(invalid, True)
    assert caught.value.code == 1007


def add_all(inflater: Inflater, fragments: list[bytes]) -> None:
    for fragment in fragments:
        inflater.add(fragment, False)


@pytest.mark.parametrize("step", [1, 100, 1 << 20])
def test_decompression_bomb_is_refused_without_using_memory(step: int) -> None:
    """100 MB in 100 KB, whole or in fragments: 1009 as soon as the limit is exceeded."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(100)) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]
    assert len(bomb) < 110_000
    fragments = [bomb[at : at + step] for at in range(0, len(bomb), step)]
    inflater = Inflater(LIMIT * 2)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolViolation) as caught:
            add_all(inflater, fragments)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (caught.value.code, caught.value.reason) == (1009, f"message exceeds {LIMIT * 2} bytes")
    assert peak < 8 * LIMIT


@given(st.binary(max_size=300), st.binary(max_size=10), st.integers(0, 400), st.integers(1, 100))
def test_damaged_messages_are_data_or_violations(data: bytes, damage: bytes, at: int, step: int) -> None:
    """Any input is inflated within the limit or is a violation, with the same result whole and in fragments."""

    def inflate(step: int) -> bytes | int:
        inflater, inflated = Inflater(200), b""
        try:
            for begin in range(0, len(message), step):
                inflated += inflater.add(message[begin : begin + step], begin + step >= len(message))
        except ProtocolViolation as violation:
            return violation.code
        return inflated

    message = deflate(data, 1)
    message = message[:at] + damage + message[at + len(damage) :]
    whole = inflate(len(message))
    assert whole in (1007, 1009) if isinstance(whole, int) else len(whole) <= 200
    assert inflate(step) == whole or {type(whole), type(inflate(step))} == {int}, (
        "with two faults, either may be reported"
    )
    if not damage:
        assert whole == (data if len(data) <= 200 else 1009)


def test_size_limit_is_exact() -> None:
    """One more byte is a violation, also if it is inflated only at the end of the message."""
    assert Inflater(1000).add(deflate(b"x" * 1000, 1), True) == b"x" * 1000
    for size in (1001, 1002, 5000):
        with pytest.raises(ProtocolViolation, match="1009 message exceeds 1000 bytes"):
            Inflater(1000).add(deflate(b"x" * size, 1), True)


def test_empty_blocks_are_limited() -> None:
    """A message of many empty blocks inflates to nothing, but its compressed size is limited."""
    inflater = Inflater(1000)
    with pytest.raises(ProtocolViolation, match="1009"):
        add_all(inflater, [b"\x00\x00\x00\xff\xff"] * 1000)
