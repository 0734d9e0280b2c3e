"""Messages that are too large, at once or in pieces, claimed or real."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.acceptance.abuse.surroundings import enter, hits, megabytes, undisturbed
from tests.acceptance.harness import ServerProcess
from tests.acceptance.peer import BINARY, CONTINUATION, TEXT, Peer, company, frame, run, until

LIMIT = 65536
SIZE_LIMIT = "websocket.message_size_limit"


def publication(size: int) -> bytes:
    """A publish command of exactly this many bytes."""
    command = json.dumps({"id": 7, "publish": {"channel": "bare:x", "data": ""}}).encode()
    return command.replace(b'""', b'"' + b"x" * (size - len(command)) + b'"')


OVERSIZED = {
    "announces 2**62 bytes": [frame(TEXT, b"{", announced=2**62)],
    "announces 2**63 - 1 bytes": [frame(BINARY, b"{", announced=2**63 - 1)],
    "one byte too many": [frame(TEXT, publication(LIMIT + 1))],
    "in fragments": [
        frame(TEXT, b"x" * 8192, final=False),
        *[frame(CONTINUATION, b"x" * 8192, final=False)] * 8,
    ],
    "in a last fragment": [frame(BINARY, b"x" * LIMIT, final=False), frame(CONTINUATION, b"x")],
    "in an announced fragment": [frame(BINARY, b"x", final=False), frame(CONTINUATION, b"", announced=2**40)],
}


@pytest.mark.parametrize("message", OVERSIZED)
@pytest.mark.parametrize("path", ["/connection/websocket", "/ws"])
def test_too_large_is_1009_before_memory_is_taken(open_house: ServerProcess, path: str, message: str) -> None:
    """Whichever way it is too large: close code 1009 as soon as that is known."""

    async def scenario() -> None:
        hits_before = await hits(open_house, SIZE_LIMIT)
        before = open_house.resident_bytes()
        async with undisturbed(open_house), await Peer.open(open_house.port, path) as peer:
            await peer.send(*OVERSIZED[message])
            close = await peer.verdict()
            assert (close.code, close.payload[2:]) == (1009, b"message exceeds 65536 bytes")
        assert await hits(open_house, SIZE_LIMIT) == hits_before + 1
        assert open_house.resident_bytes() - before < megabytes(2)

    run(scenario())


def test_exactly_the_limit_is_fine(open_house: ServerProcess) -> None:
    """64 KiB in one frame, and again in fragments of one kilobyte."""

    async def scenario() -> None:
        async with undisturbed(open_house), await Peer.open(open_house.port) as peer:
            await enter(peer)
            message = publication(LIMIT)
            assert len(message) == LIMIT
            await peer.send(frame(TEXT, message))
            assert "publish" in await peer.reply(7)
            pieces = [message[at : at + 1024] for at in range(0, LIMIT, 1024)]
            kinds = [TEXT, *[CONTINUATION] * (len(pieces) - 1)]
            await peer.send(*map(frame_of, kinds, pieces, [False] * (len(pieces) - 1) + [True]))
            assert "publish" in await peer.reply(7)

    run(scenario())


def frame_of(kind: int, payload: bytes, final: bool) -> bytes:
    return frame(kind, payload, final=final)


def test_many_unfinished_messages_hold_no_more_than_the_limit_each(open_house: ServerProcess) -> None:
    """200 connections that send nearly all of the largest message and stop: bounded, and freed when they go."""

    async def scenario() -> None:
        before = open_house.resident_bytes()
        async with undisturbed(open_house), company(200, lambda: Peer.open(open_house.port)) as peers:
            await asyncio.gather(*(peer.send(frame(TEXT, b"x" * (LIMIT - 10), announced=LIMIT)) for peer in peers))
            assert open_house.resident_bytes() - before < 200 * 3 * LIMIT
        await until(lambda: open_house.resident_bytes() - before < megabytes(12), "memory is back")

    run(scenario())
