"""WebSocket messages beyond the size limit, in one frame or in fragments, announced or sent."""

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

SIZE_LIMIT_BYTES = 65536
SIZE_LIMIT = "websocket.message_size_limit"


def encode_publish(size: int) -> bytes:
    """A publish command of exactly this many bytes."""
    command = json.dumps({"id": 7, "publish": {"channel": "bare:x", "data": ""}}).encode()
    return command.replace(b'""', b'"' + b"x" * (size - len(command)) + b'"')


OVERSIZED = {
    "announces 2**62 bytes": [encode_frame(TEXT, b"{", announced_size=2**62)],
    "announces 2**63 - 1 bytes": [encode_frame(BINARY, b"{", announced_size=2**63 - 1)],
    "one byte too many": [encode_frame(TEXT, encode_publish(SIZE_LIMIT_BYTES + 1))],
    "in fragments": [
        encode_frame(TEXT, b"x" * 8192, final=False),
        *[encode_frame(CONTINUATION, b"x" * 8192, final=False)] * 8,
    ],
    "in a last fragment": [
        encode_frame(BINARY, b"x" * SIZE_LIMIT_BYTES, final=False),
        encode_frame(CONTINUATION, b"x"),
    ],
    "in an announced fragment": [
        encode_frame(BINARY, b"x", final=False),
        encode_frame(CONTINUATION, b"", announced_size=2**40),
    ],
}


@pytest.mark.parametrize("message", OVERSIZED)
@pytest.mark.parametrize("path", ["/connection/websocket", "/ws"])
def test_message_beyond_the_limit_is_closed_with_1009(
    permissive_server: ServerProcess, path: str, message: str
) -> None:
    """The server closes the connection as soon as the size is known, before allocating memory for the message."""

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


def test_message_of_exactly_the_limit_is_accepted(permissive_server: ServerProcess) -> None:
    """64 KiB are accepted in one frame and in fragments of 1 KiB."""

    async def scenario() -> None:
        async with (
            undisturbed_traffic(permissive_server),
            await RawPeer.connect_websocket(permissive_server.port) as peer,
        ):
            await connect_and_subscribe(peer, CHANNEL)
            message = encode_publish(SIZE_LIMIT_BYTES)
            assert len(message) == SIZE_LIMIT_BYTES
            await peer.send(encode_frame(TEXT, message))
            assert "publish" in await peer.read_reply(7)
            pieces = [message[at : at + 1024] for at in range(0, SIZE_LIMIT_BYTES, 1024)]
            kinds = [TEXT, *[CONTINUATION] * (len(pieces) - 1)]
            await peer.send(*map(encode_fragment, kinds, pieces, [False] * (len(pieces) - 1) + [True]))
            assert "publish" in await peer.read_reply(7)

    run_scenario(scenario())


def encode_fragment(kind: int, payload: bytes, final: bool) -> bytes:
    return encode_frame(kind, payload, final=final)


def test_unfinished_messages_use_bounded_memory(permissive_server: ServerProcess) -> None:
    """200 connections send most of a message and stop. The server uses the memory of closed connections again.

    The first round is not measured, because the allocator keeps a part of its pages.
    """

    async def scenario() -> None:
        await send_unfinished_messages(permissive_server)
        before = permissive_server.resident_bytes()
        for _ in range(3):
            await send_unfinished_messages(permissive_server)
        await wait_until(lambda: permissive_server.resident_bytes() - before < megabytes(24), "the memory is freed")

    run_scenario(scenario())


async def send_unfinished_messages(server: ServerProcess) -> None:
    """Three rounds that free nothing would use 39 megabytes."""
    before = server.resident_bytes()
    unfinished = encode_frame(TEXT, b"x" * (SIZE_LIMIT_BYTES - 10), announced_size=SIZE_LIMIT_BYTES)
    async with (
        undisturbed_traffic(server),
        open_peers(200, lambda: RawPeer.connect_websocket(server.port)) as peers,
    ):
        await asyncio.gather(*(peer.send(unfinished) for peer in peers))
        assert server.resident_bytes() - before < 200 * 3 * SIZE_LIMIT_BYTES
