"""The reader of ordinary clients, and how it gives way to the one that knows all of RFC 6455."""

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
def test_a_whole_message_is_unmasked(opcode: int, length: int) -> None:
    """Of any length up to the limit, in either way to write the length."""
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
def test_anything_else_is_left_to_others(data: bytes) -> None:
    """Parts, several, fragments, control frames, reserved bits, no mask, odd lengths, too much."""
    assert parse_single_frame(data, LIMIT) is None


@in_loop
def test_clients_that_compress_need_no_parser() -> None:
    """Where it was agreed on, small compressed messages are read here too, between others; control frames are not."""
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
def test_what_inflates_to_nothing_counts_as_well() -> None:
    """Work for nothing is charged by the bytes that it took, whole or in fragments; a little is not."""
    nothing = b"\x00\x00\x00\xff\xff" * 100 + b"\x00"
    harness = ConnectionHarness(inflates=True)
    harness.feed(masked(2, nothing, reserved=4))
    harness.feed(masked(2, deflate(b"a", 1), reserved=4))
    assert harness.receiver.messages == [(b"", True), (b"a", True)]
    assert harness.receiver.control == [501]
    harness.feed(masked(2, nothing[:200], final=False, reserved=4), masked(0, nothing[200:]))
    assert harness.receiver.messages[2:] == [(b"", True)]
    assert harness.receiver.control == [501, 200, 301]


@in_loop
def test_bad_compressed_messages() -> None:
    """Too large once inflated, not to be inflated, no text, other reserved bits, the bit on other frames."""
    bad = [
        (masked(1, deflate(b"x" * 1001, 1), reserved=4), 1009),
        (masked(1, b"\xff\xff", reserved=4), 1007),
        (masked(1, deflate(b"\xff", 1), reserved=4), 1007),
        (masked(1, deflate(b"a", 1), reserved=6), 1002),
        (masked(9, b"ping", reserved=4), 1002),
        (masked(0, b"", reserved=4), 1002),
    ]
    for frame, code in bad:
        harness = ConnectionHarness(inflates=True)
        harness.feed(frame)
        assert harness.receiver.messages == []
        assert harness.stream.written[len(RESPONSE) + 2 :][:2] == code.to_bytes(2, "big")


@in_loop
def test_ordinary_clients_need_no_parser() -> None:
    """Message after message; what is no text ends the connection as ever."""
    harness = ConnectionHarness()
    harness.feed(masked(1, b"a"))
    harness.feed(masked(2, b"\xff"))
    assert harness.receiver.messages == [(b"a", False), (b"\xff", True)]
    assert isinstance(harness.reader, SingleFrameReader)
    harness.feed(masked(1, b"\xff"))
    assert harness.sent[:4] == b"\x88\x1b\x03\xef"


@in_loop
def test_the_first_unusual_frame_changes_the_reader_for_good() -> None:
    """It loses nothing, whether there is a part of a frame at first or a ping."""
    for first in (masked(9, b"p"), masked(1, b"abc")[:5]):
        harness = ConnectionHarness()
        harness.feed(masked(1, b"before"))
        harness.feed(first)
        assert isinstance(harness.reader, FrameReader)
        harness.feed((masked(1, b"abc"))[5:] if len(first) == 5 else masked(1, b"abc"))
        assert [data for data, _ in harness.receiver.messages] == [b"before", b"abc"]


@in_loop
def test_a_connection_that_is_closing_takes_no_messages() -> None:
    """They are read, and dropped, until the peer's close frame comes."""
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
def test_it_makes_no_difference_how_one_begins(frames: list[bytes], cuts: list[int]) -> None:
    """Whatever comes, cut wherever: the same messages and answers as with the full reader from the start."""

    def outcome(light: bool) -> tuple[object, ...]:
        harness = ConnectionHarness()
        if not light:
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
