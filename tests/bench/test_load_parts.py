"""The parts of the load programs that read streams and count, called from here: every cut and every size of value."""

from __future__ import annotations

import ctypes
import math
import random
from collections.abc import Iterator

import pytest

from bench.load.build import HERE, compile_sources
from tests.bench.test_load_http import CHUNKED, EMPTY, FAILED, SIZED
from tests.bench.wire import PING, fragments, frame

NO_PIECE, DATA_PIECE, PING_PIECE = 0, 1, 2
COMPLETE = 7
STATE_BYTES = 512
"""More than any of the structures that keep a state between calls needs; zeroed is their beginning."""


class Piece(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int),
        ("bytes", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("ends_message", ctypes.c_bool),
    )


class Pattern(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_char_p), ("size", ctypes.c_size_t), ("fallback", ctypes.c_void_p))


@pytest.fixture(scope="module")
def parts() -> ctypes.CDLL:
    names = ("histogram", "scan", "websocket", "response", "commands", "link")
    library = ctypes.CDLL(str(compile_sources("load.so", [HERE / f"{name}.c" for name in names], ["-shared", "-fPIC"])))
    library.next_piece.restype = Piece
    library.make_pattern.restype = Pattern
    library.make_pattern.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
    library.histogram_quantile_ns.restype = ctypes.c_uint64
    library.histogram_quantile_ns.argtypes = (ctypes.c_void_p, ctypes.c_double)
    library.histogram_record.argtypes = (ctypes.c_void_p, ctypes.c_uint64)
    for name in ("next_mark", "next_match", "response_read"):
        getattr(library, name).restype = ctypes.c_bool
    return library


def cuts(stream: bytes) -> Iterator[list[bytes]]:
    """The stream in two parts, cut at each place, and all bytes apart."""
    for at in range(1, len(stream)):
        yield [stream[:at], stream[at:]]
    yield [stream[i : i + 1] for i in range(len(stream))]


class Cursor:
    """Bytes that a C function reads from, and how far it has come."""

    def __init__(self, data: bytes) -> None:
        self._buffer = ctypes.create_string_buffer(data, len(data))
        start = ctypes.addressof(self._buffer)
        self.end = ctypes.c_void_p(start + len(data))
        self.at = ctypes.c_void_p(start)

    @property
    def left(self) -> int:
        return (self.end.value or 0) - (self.at.value or 0)


def read_frames(parts: ctypes.CDLL, pieces: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The messages and the pings in a stream."""
    state = ctypes.create_string_buffer(STATE_BYTES)
    messages, pings, message = [], [], b""
    for part in pieces:
        cursor = Cursor(part)
        while (piece := parts.next_piece(state, ctypes.byref(cursor.at), cursor.end)).kind != NO_PIECE:
            content = ctypes.string_at(piece.bytes, piece.size)
            if piece.kind == PING_PIECE:
                pings.append(content)
                continue
            assert piece.kind == DATA_PIECE
            message += content
            if piece.ends_message:
                messages.append(message)
                message = b""
    return messages, pings


def test_frames_cut_everywhere(parts: ctypes.CDLL) -> None:
    """Headers of all lengths, empty frames, fragments and pings between them, wherever a read ends."""
    stream = (
        frame(b"")
        + frame(b"one~", final=False)
        + frame(b"amid", PING)
        + frame(b"", 0, final=False)
        + frame(b"two", 0)
        + frame(b"", PING)
        + frame(b"x" * 200)
        + fragments(b"abc")
    )
    large = frame(b"y" * 70_000)
    for pieces in cuts(stream):
        assert read_frames(parts, pieces) == ([b"", b"one~two", b"x" * 200, b"abc"], [b"amid", b""])
    for at in range(1, 12):
        assert read_frames(parts, [large[:at], large[at:]]) == ([b"y" * 70_000], [])


def test_marks_cut_everywhere(parts: ctypes.CDLL) -> None:
    """Marks are found with their times, also side by side; what only begins like one is none."""
    stream = b"a~0123456789abcdef~00000000000000ffb~x~12y~ffffffffffffffff~12"
    for pieces in cuts(stream):
        state, times, time_ns = ctypes.create_string_buffer(STATE_BYTES), [], ctypes.c_uint64()
        for part in pieces:
            cursor = Cursor(part)
            while parts.next_mark(state, ctypes.byref(cursor.at), cursor.end, ctypes.byref(time_ns)):
                times.append(time_ns.value)
        assert times == [0x0123456789ABCDEF, 0xFF, 2**64 - 1]


@pytest.mark.parametrize(
    ("pattern", "stream", "count"),
    [
        (b"aab", b"aaab aab aaaab aa b", 3),
        (b'"publish":{}', b'{"id":3,"publish":{}}\n{"id":4,"publ"publish":{}}{"publish":{', 2),
        (b"abab", b"ababab ababababab", 3),
        (b"\x00", b"\x00a\x00\x00", 3),
    ],
)
def test_acks_cut_everywhere(parts: ctypes.CDLL, pattern: bytes, stream: bytes, count: int) -> None:
    """Patterns that begin again within themselves are found, each once, and not across one another."""
    assert stream.count(pattern) == count
    made = parts.make_pattern(pattern, len(pattern))
    for pieces in cuts(stream):
        matched, found = ctypes.c_size_t(), 0
        for part in pieces:
            cursor = Cursor(part)
            while parts.next_match(ctypes.byref(made), ctypes.byref(matched), ctypes.byref(cursor.at), cursor.end):
                found += 1
        assert found == count


@pytest.mark.parametrize("response", [SIZED, EMPTY, CHUNKED, FAILED], ids=["sized", "empty", "chunked", "failed"])
def test_responses_cut_everywhere(parts: ctypes.CDLL, response: bytes) -> None:
    """A response is complete with its last byte, not before, and what follows is left alone."""
    for pieces in cuts(response):
        state = ctypes.create_string_buffer(STATE_BYTES)
        for part in pieces[:-1]:
            cursor = Cursor(part)
            assert not parts.response_read(state, ctypes.byref(cursor.at), cursor.end)
            assert cursor.left == 0
        cursor = Cursor(pieces[-1] + b"HTTP/1.1 next")
        assert parts.response_read(state, ctypes.byref(cursor.at), cursor.end)
        assert ctypes.c_int.from_buffer(state).value == COMPLETE
        assert cursor.left == len(b"HTTP/1.1 next")


def test_the_histogram_is_off_by_less_than_a_percent(parts: ctypes.CDLL) -> None:
    """From a nanosecond to 100 s, a value alone is read back to 1 %; many have the quantiles of the sorted list."""
    size = 1 << 16
    edges = [2**power + offset for power in range(8, 37) for offset in (-1, 0, 1)]
    for value_ns in [*range(1, 300), *edges, 10**11]:
        one = ctypes.create_string_buffer(size)
        parts.histogram_record(one, value_ns)
        parts.histogram_record(one, 10**12)  # the maximum, which is kept exactly and must not help
        assert abs(parts.histogram_quantile_ns(one, 0.5) - value_ns) <= value_ns / 100
        assert parts.histogram_quantile_ns(one, 1.0) == 10**12
    chance = random.Random(1)
    values_ns = sorted(int(math.exp(chance.uniform(0, math.log(1e11)))) for _ in range(5000))
    many = ctypes.create_string_buffer(size)
    for value_ns in values_ns:
        parts.histogram_record(many, value_ns)
    for share in (0.001, 0.5, 0.99, 0.999):
        exact_ns = values_ns[math.ceil(share * len(values_ns)) - 1]
        assert abs(parts.histogram_quantile_ns(many, share) - exact_ns) <= exact_ns / 100
    assert parts.histogram_quantile_ns(ctypes.create_string_buffer(size), 0.5) == 0
