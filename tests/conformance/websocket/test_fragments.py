"""Fragmented messages with control frames between the fragments (like Autobahn 5)."""

from __future__ import annotations

import pytest

from .raw_client import BINARY, CONTINUATION, PING, PONG, TEXT, RawClient, Received, client_frame
from .server import MESSAGE_SIZE_LIMIT, EchoServer

BEFORE = [b"", client_frame(TEXT, b"whole"), client_frame(TEXT, b"w", final=False) + client_frame(CONTINUATION)]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("together", [True, False])
def test_fragments_are_joined(peer: RawClient, opcode: int, together: bool) -> None:
    """Empty fragments too, in one segment or in several."""
    fragments = [
        client_frame(opcode, b"", final=False),
        client_frame(CONTINUATION, b"a", final=False),
        client_frame(CONTINUATION, b"", final=False),
        client_frame(CONTINUATION, b"b" * 200, final=False),
        client_frame(CONTINUATION, b"c"),
    ]
    if not together:
        for fragment in fragments:
            peer.send(fragment)
        fragments = []
    assert peer.exchange(*fragments) == [Received(opcode, b"a" + b"b" * 200 + b"c")]


def test_pings_between_fragments(peer: RawClient) -> None:
    """They get pongs at once and do not affect the message."""
    frames = peer.exchange(
        client_frame(TEXT, b"a", final=False),
        client_frame(PING, b"1"),
        client_frame(CONTINUATION, b"b", final=False),
        client_frame(PING, b"2"),
        client_frame(CONTINUATION, b"c"),
    )
    assert frames == [Received(PONG, b"1"), Received(PONG, b"2"), Received(TEXT, b"abc")]


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("before", BEFORE)
def test_continuation_without_a_first_frame_is_a_violation(peer: RawClient, final: bool, before: bytes) -> None:
    """At the start, and after a complete message."""
    frames, code = peer.send_until_close(before, client_frame(CONTINUATION, b"x", final=final))
    assert (len(frames), code) == (1 if before else 0, 1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("final", [True, False])
def test_message_inside_a_message_is_a_violation(peer: RawClient, opcode: int, final: bool) -> None:
    """Only control frames may come between fragments."""
    assert peer.send_until_close(client_frame(TEXT, b"a", final=False), client_frame(opcode, b"b", final=final)) == (
        [],
        1002,
    )


def test_close_inside_a_message(peer: RawClient) -> None:
    """A client may close inside a message. The unfinished message is dropped."""
    assert peer.exchange(client_frame(TEXT, b"a", final=False)) == []


def test_sum_of_fragments_is_limited(server: EchoServer, peer: RawClient) -> None:
    """A message of exactly the limit is accepted; one more byte is not."""
    half = b"x" * (MESSAGE_SIZE_LIMIT // 2)
    whole = [client_frame(BINARY, half, final=False), client_frame(CONTINUATION, half)]
    assert [len(frame.payload) for frame in peer.exchange(*whole)] == [MESSAGE_SIZE_LIMIT]
    with RawClient.open(server.port) as other:
        more = client_frame(CONTINUATION, half + b"x")
        assert other.send_until_close(whole[0], more) == ([], 1009)


def test_many_small_fragments(peer: RawClient) -> None:
    """A message may have thousands of fragments."""
    count = 4000
    pieces = [client_frame(CONTINUATION, b"x", final=False)] * count
    frames = peer.exchange(client_frame(BINARY, b"", final=False), *pieces, client_frame(CONTINUATION))
    assert frames == [Received(BINARY, b"x" * count)]


def test_endless_fragments_are_limited_by_the_session(peer: RawClient) -> None:
    """Empty fragments never reach the size limit, so the session counts frames: 3013."""
    endless = [client_frame(CONTINUATION, b"", final=False)] * 20_000
    assert peer.send_until_close(client_frame(TEXT, b"", final=False), *endless) == ([], 3013)
