"""The reader for single small messages, and its replacement by the `FrameReader`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beaconfire.base.errors import SHUTDOWN
from beaconfire.transports.websocket.deflate import deflate
from beaconfire.transports.websocket.frame_reader import FrameReader
from beaconfire.transports.websocket.single_frame_reader import SingleFrameReader, parse_single_frame

from .support import RESPONSE, ConnectionHarness, in_loop, masked

LIMIT = 1000


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 999, 1000])
@pytest.mark.parametrize("opcode", [1, 2])
def test_whole_message_is_unmasked(opcode: int, length: int) -> None:
    """Of any length up to the limit, in both short forms of the length."""
    payload = bytes(n % 251 for n in range(length))
    assert parse_single_frame(masked(opcode, payload), LIMIT) == payload


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x81",
        masked(1, b"abc")[:-1],
        masked(1, b"abc") + b"\x81",
        masked(1, b"abc") * 2,
        masked(1, b"abc", final=False),
        masked(0, b"abc"),
        masked(1, b"abc", reserved=4),
        masked(3, b"abc"),
        masked(8, b"\x03\xe8"),
        masked(9, b"ping"),
        masked(10, b"pong"),
        b"\x81\x03abc123",
        b"\x81\xfe\x00\x03\0\0\0\0abc",
        b"\x81\xfe\x00\x7e",
        b"\x81\xff" + (3).to_bytes(8, "big") + b"\0\0\0\0abc",
        masked(1, b"x" * 1001),
        masked(1, b"x" * 70_000),
    ],
)
def test_other_input_is_not_parsed(data: bytes) -> None:
    """Incomplete and several frames, fragments, control frames, reserved bits, no mask, invalid or large lengths."""
    assert parse_single_frame(data, LIMIT) is None


@in_loop
def test_compressed_messages_are_read_without_a_frame_reader() -> None:
    """On a connection with compression, mixed with uncompressed ones. A control frame replaces the reader."""
    harness = ConnectionHarness(inflates=True)
    for number in range(3):
        harness.feed(masked(1 + number % 2, deflate(b"a%d" % number, 1), reserved=4))
        harness.feed(masked(1 + number % 2, b"b%d" % number))
    assert [data for data, _ in harness.receiver.messages] == [b"a0", b"b0", b"a1", b"b1", b"a2", b"b2"]
    assert [binary for _, binary in harness.receiver.messages] == [False, False, True, True, False, False]
    assert isinstance(harness.reader, SingleFrameReader)
    harness.feed(masked(9, b"ping"))
    harness.feed(masked(1, deflate(b"c", 1), reserved=4))
    assert harness.receiver.messages[-1] == (b"c", False)
    assert isinstance(harness.reader, FrameReader)


@in_loop
def test_surplus_of_compressed_messages_is_reported() -> None:
    """If a message is much larger compressed than inflated, whole or in fragments. A small surplus is ignored."""
    empty_blocks = b"\x00\x00\x00\xff\xff" * 100 + b"\x00"
    harness = ConnectionHarness(inflates=True)
    harness.feed(masked(2, empty_blocks, reserved=4))
    harness.feed(masked(2, deflate(b"a", 1), reserved=4))
    assert harness.receiver.messages == [(b"", True), (b"a", True)]
    assert harness.receiver.control == [501]
    harness.feed(masked(2, empty_blocks[:200], final=False, reserved=4), masked(0, empty_blocks[200:]))
    assert harness.receiver.messages[2:] == [(b"", True)]
    assert harness.receiver.control == [501, 200, 301]


@in_loop
def test_invalid_compressed_messages_are_violations() -> None:
    """Too large when inflated, invalid data, invalid text, other reserved bits, the bit on other frames."""
    invalid = [
        (masked(1, deflate(b"x" * 1001, 1), reserved=4), 1009),
        (masked(1, b"\xff\xff", reserved=4), 1007),
        (masked(1, deflate(b"\xff", 1), reserved=4), 1007),
        (masked(1, deflate(b"a", 1), reserved=6), 1002),
        (masked(9, b"ping", reserved=4), 1002),
        (masked(0, b"", reserved=4), 1002),
    ]
    for frame, code in invalid:
        harness = ConnectionHarness(inflates=True)
        harness.feed(frame)
        assert harness.receiver.messages == []
        assert harness.stream.written[len(RESPONSE) + 2 :][:2] == code.to_bytes(2, "big")


@in_loop
def test_small_messages_are_read_without_a_frame_reader() -> None:
    """Message after message. Invalid text is a violation, as in the `FrameReader`."""
    harness = ConnectionHarness()
    harness.feed(masked(1, b"a"))
    harness.feed(masked(2, b"\xff"))
    assert harness.receiver.messages == [(b"a", False), (b"\xff", True)]
    assert isinstance(harness.reader, SingleFrameReader)
    harness.feed(masked(1, b"\xff"))
    assert harness.sent[:4] == b"\x88\x1b\x03\xef"


@in_loop
def test_other_input_replaces_the_reader_permanently() -> None:
    """By a ping or an incomplete frame. No byte is lost."""
    for first in (masked(9, b"p"), masked(1, b"abc")[:5]):
        harness = ConnectionHarness()
        harness.feed(masked(1, b"before"))
        harness.feed(first)
        assert isinstance(harness.reader, FrameReader)
        harness.feed((masked(1, b"abc"))[5:] if len(first) == 5 else masked(1, b"abc"))
        assert [data for data, _ in harness.receiver.messages] == [b"before", b"abc"]


@in_loop
def test_closing_connection_delivers_no_messages() -> None:
    """They are read and dropped until the peer's close frame."""
    harness = ConnectionHarness()
    harness.connection.close(SHUTDOWN, "shutdown")
    harness.feed(masked(1, b"late"))
    harness.feed(masked(8, b"\x03\xe8"))
    assert harness.receiver.messages == []
    assert harness.stream.calls[-1] == "close"


@given(
    st.lists(
        st.builds(masked, st.sampled_from([0, 1, 2, 8, 9, 10]), st.binary(max_size=120), st.booleans()), max_size=8
    ),
    st.lists(st.integers(1, 300), max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_both_readers_have_the_same_results(frames: list[bytes], cuts: list[int]) -> None:
    """For any frames in any segments: the same messages and responses as with a `FrameReader` from the start."""

    def outcome(starts_with_single_frames: bool) -> tuple[object, ...]:
        harness = ConnectionHarness()
        if not starts_with_single_frames:
            harness.stream.protocol = harness.connection.new_reader()
        data = b"".join(frames)
        for cut in [*cuts, len(data)]:
            harness.feed(data[:cut])
            data = data[cut:]
        receiver = harness.receiver
        return receiver.messages, receiver.control, receiver.pongs, harness.sent, harness.stream.calls

    seen: list[tuple[object, ...]] = []
    in_loop(lambda: seen.extend((outcome(True), outcome(False))))()
    assert seen[0] == seen[1]
