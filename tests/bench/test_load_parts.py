"""The stream readers and the histogram of the load programs, called from Python: every division, every size."""

from __future__ import annotations

import ctypes
import math
import random
from collections.abc import Iterator

import pytest

from bench.load.build import HERE, compile_sources
from tests.bench.fake_server import PING, fragments, frame
from tests.bench.test_load_http import CHUNKED, EMPTY, FAILED, SIZED

NO_PIECE, DATA_PIECE, PING_PIECE = 0, 1, 2
COMPLETE = 7
STATE_BYTES = 512
"""Enough for each struct that keeps the state between calls. Zeroes are the initial state."""


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


def divisions(stream: bytes) -> Iterator[list[bytes]]:
    """The stream in two parts, divided at each place, and as single bytes."""
    for at in range(1, len(stream)):
        yield [stream[:at], stream[at:]]
    yield [stream[i : i + 1] for i in range(len(stream))]


class Cursor:
    """Bytes for a C function, and the position that it has reached."""

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


def test_frames_divided_anywhere(parts: ctypes.CDLL) -> None:
    """Headers of all lengths, empty frames, fragments and pings between them, for every end of a read."""
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
    for pieces in divisions(stream):
        assert read_frames(parts, pieces) == ([b"", b"one~two", b"x" * 200, b"abc"], [b"amid", b""])
    for at in range(1, 12):
        assert read_frames(parts, [large[:at], large[at:]]) == ([b"y" * 70_000], [])


def test_marks_divided_anywhere(parts: ctypes.CDLL) -> None:
    """Marks are found with their times, also next to each other. The beginning of a mark alone is not a mark."""
    stream = b"a~0123456789abcdef~00000000000000ffb~x~12y~ffffffffffffffff~12"
    for pieces in divisions(stream):
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
def test_acks_divided_anywhere(parts: ctypes.CDLL, pattern: bytes, stream: bytes, count: int) -> None:
    """Patterns that contain their own beginning are found, each once and without overlaps."""
    assert stream.count(pattern) == count
    built = parts.make_pattern(pattern, len(pattern))
    for pieces in divisions(stream):
        matched, found = ctypes.c_size_t(), 0
        for part in pieces:
            cursor = Cursor(part)
            while parts.next_match(ctypes.byref(built), ctypes.byref(matched), ctypes.byref(cursor.at), cursor.end):
                found += 1
        assert found == count


@pytest.mark.parametrize("response", [SIZED, EMPTY, CHUNKED, FAILED], ids=["sized", "empty", "chunked", "failed"])
def test_responses_divided_anywhere(parts: ctypes.CDLL, response: bytes) -> None:
    """A response is complete with its last byte, and bytes behind it are not read."""
    for pieces in divisions(response):
        state = ctypes.create_string_buffer(STATE_BYTES)
        for part in pieces[:-1]:
            cursor = Cursor(part)
            assert not parts.response_read(state, ctypes.byref(cursor.at), cursor.end)
            assert cursor.left == 0
        cursor = Cursor(pieces[-1] + b"HTTP/1.1 next")
        assert parts.response_read(state, ctypes.byref(cursor.at), cursor.end)
        assert ctypes.c_int.from_buffer(state).value == COMPLETE
        assert cursor.left == len(b"HTTP/1.1 next")


def test_the_error_of_the_histogram_is_below_one_percent(parts: ctypes.CDLL) -> None:
    """From a nanosecond to 100 s: a single value is exact to 1 %, and the quantiles are those of the sorted list."""
    size = 1 << 16
    edges = [2**power + offset for power in range(8, 37) for offset in (-1, 0, 1)]
    for value_ns in [*range(1, 300), *edges, 10**11]:
        one = ctypes.create_string_buffer(size)
        parts.histogram_record(one, value_ns)
        parts.histogram_record(one, 10**12)  # the maximum is stored exactly, so the tested value must not be it
        assert abs(parts.histogram_quantile_ns(one, 0.5) - value_ns) <= value_ns / 100
        assert parts.histogram_quantile_ns(one, 1.0) == 10**12
    generator = random.Random(1)
    values_ns = sorted(int(math.exp(generator.uniform(0, math.log(1e11)))) for _ in range(5000))
    many = ctypes.create_string_buffer(size)
    for value_ns in values_ns:
        parts.histogram_record(many, value_ns)
    for share in (0.001, 0.5, 0.99, 0.999):
        exact_ns = values_ns[math.ceil(share * len(values_ns)) - 1]
        assert abs(parts.histogram_quantile_ns(many, share) - exact_ns) <= exact_ns / 100
    assert parts.histogram_quantile_ns(ctypes.create_string_buffer(size), 0.5) == 0
