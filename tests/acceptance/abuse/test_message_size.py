"""Messages that are too large, at once or in pieces, claimed or real."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.acceptance.background_traffic import CHANNEL, undisturbed_traffic
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.raw_peer import (
    BINARY,
    CONTINUATION,
    TEXT,
    RawPeer,
    connect_and_subscribe,
    encode_frame,
    open_peers,
)
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_limit_hits, megabytes

LIMIT = 65536
SIZE_LIMIT = "websocket.message_size_limit"


def publication(size: int) -> bytes:
    """A publish command of exactly this many bytes."""
    command = json.dumps({"id": 7, "publish": {"channel": "bare:x", "data": ""}}).encode()
    return command.replace(b'""', b'"' + b"x" * (size - len(command)) + b'"')


OVERSIZED = {
    "announces 2**62 bytes": [encode_frame(TEXT, b"{", announced_size=2**62)],
    "announces 2**63 - 1 bytes": [encode_frame(BINARY, b"{", announced_size=2**63 - 1)],
    "one byte too many": [encode_frame(TEXT, publication(LIMIT + 1))],
    "in fragments": [
        encode_frame(TEXT, b"x" * 8192, final=False),
        *[encode_frame(CONTINUATION, b"x" * 8192, final=False)] * 8,
    ],
    "in a last fragment": [encode_frame(BINARY, b"x" * LIMIT, final=False), encode_frame(CONTINUATION, b"x")],
    "in an announced fragment": [
        encode_frame(BINARY, b"x", final=False),
        encode_frame(CONTINUATION, b"", announced_size=2**40),
    ],
}


@pytest.mark.parametrize("message", OVERSIZED)
@pytest.mark.parametrize("path", ["/connection/websocket", "/ws"])
def test_too_large_is_1009_before_memory_is_taken(permissive_server: ServerProcess, path: str, message: str) -> None:
    """Whichever way it is too large: close code 1009 as soon as that is known."""

    async def scenario() -> None:
        hits_before = await count_limit_hits(permissive_server, SIZE_LIMIT)
        before = permissive_server.resident_bytes()
        async with (
            undisturbed_traffic(permissive_server),
            await RawPeer.connect_websocket(permissive_server.port, path) as peer,
        ):
            await peer.send(*OVERSIZED[message])
            close = await peer.read_close_frame()
            assert (close.close_code, close.payload[2:]) == (1009, b"message exceeds 65536 bytes")
        assert await count_limit_hits(permissive_server, SIZE_LIMIT) == hits_before + 1
        assert permissive_server.resident_bytes() - before < megabytes(2)

    run_scenario(scenario())


def test_exactly_the_limit_is_fine(permissive_server: ServerProcess) -> None:
    """64 KiB in one frame, and again in fragments of one kilobyte."""

    async def scenario() -> None:
        async with (
            undisturbed_traffic(permissive_server),
            await RawPeer.connect_websocket(permissive_server.port) as peer,
        ):
            await connect_and_subscribe(peer, CHANNEL)
            message = publication(LIMIT)
            assert len(message) == LIMIT
            await peer.send(encode_frame(TEXT, message))
            assert "publish" in await peer.read_reply(7)
            pieces = [message[at : at + 1024] for at in range(0, LIMIT, 1024)]
            kinds = [TEXT, *[CONTINUATION] * (len(pieces) - 1)]
            await peer.send(*map(frame_of, kinds, pieces, [False] * (len(pieces) - 1) + [True]))
            assert "publish" in await peer.read_reply(7)

    run_scenario(scenario())


def frame_of(kind: int, payload: bytes, final: bool) -> bytes:
    return encode_frame(kind, payload, final=final)


def test_many_unfinished_messages_hold_no_more_than_the_limit_each(permissive_server: ServerProcess) -> None:
    """200 connections that send nearly all of the largest message and stop: bounded, and freed when they go."""

    async def scenario() -> None:
        before = permissive_server.resident_bytes()
        async with (
            undisturbed_traffic(permissive_server),
            open_peers(200, lambda: RawPeer.connect_websocket(permissive_server.port)) as peers,
        ):
            await asyncio.gather(
                *(peer.send(encode_frame(TEXT, b"x" * (LIMIT - 10), announced_size=LIMIT)) for peer in peers)
            )
            assert permissive_server.resident_bytes() - before < 200 * 3 * LIMIT
        await wait_until(lambda: permissive_server.resident_bytes() - before < megabytes(12), "memory is back")

    run_scenario(scenario())
