"""Compressed messages that are more than they seem, or nothing at all."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.deadlines import run_scenario
from tests.acceptance.raw_peer import (
    BINARY,
    CONTINUATION,
    NATIVE_PATH,
    TEXT,
    RawPeer,
    connect_and_subscribe,
    encode_frame,
    open_peers,
)
from tests.acceptance.server_process import PERMISSIVE_CONFIG, ServerProcess
from tests.acceptance.server_state import assert_healthy, count_limit_hits, megabytes

LIMIT = 65536
SIZE_LIMIT = "websocket.message_size_limit"
OFFER = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")]


@pytest.fixture(scope="module")
def compressing_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Anyone may do anything, and compressed."""
    folder: Path = tmp_path_factory.mktemp("compressing")
    with ServerProcess(folder, PERMISSIVE_CONFIG, {"websocket.compression": "true"}) as server:
        yield server
        assert_healthy(server)


def deflated(data: bytes, times: int = 1) -> bytes:
    """The payload of a compressed message that is `data`, over and over."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join(compressor.compress(data) for _ in range(times)) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]


BOMB = deflated(bytes(1 << 20), 60)
"""60 MB in less than the limit: a thousand to one."""

BOMBS = {
    "in one frame": [encode_frame(BINARY, BOMB, compressed=True)],
    "in a small frame": [encode_frame(TEXT, deflated(b"x", 2 * LIMIT), compressed=True)],
    "in fragments": [
        encode_frame(BINARY, b"", final=False, compressed=True),
        *(encode_frame(CONTINUATION, BOMB[at : at + 100], final=False) for at in range(0, len(BOMB), 100)),
    ],
    "one byte too many": [encode_frame(TEXT, deflated(b"x" * (LIMIT + 1)), compressed=True)],
    "empty blocks without end": [
        encode_frame(BINARY, b"", final=False, compressed=True),
        *[encode_frame(CONTINUATION, b"\x00\x00\x00\xff\xff" * 1000, final=False)] * 14,
    ],
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("path", [NATIVE_PATH, "/ws"])
def test_a_bomb_is_1009_before_memory_is_taken(compressing_server: ServerProcess, path: str, bomb: str) -> None:
    """Whichever way it is packed, and by 50 clients at once: 1009, memory flat, and the neighbours notice nothing."""
    count = 50

    async def explode(peer: RawPeer) -> None:
        await peer.send(*BOMBS[bomb])
        close = await peer.read_close_frame()
        assert (close.close_code, close.payload[2:]) == (1009, b"message exceeds 65536 bytes")

    async def scenario() -> None:
        hits_before = await count_limit_hits(compressing_server, SIZE_LIMIT)
        async with (
            undisturbed_traffic(compressing_server),
            open_peers(count, lambda: RawPeer.connect_websocket(compressing_server.port, path, OFFER)) as peers,
        ):
            before = compressing_server.resident_bytes()
            await asyncio.gather(*map(explode, peers))
            assert compressing_server.resident_bytes() - before < megabytes(8)
        assert await count_limit_hits(compressing_server, SIZE_LIMIT) == hits_before + count

    run_scenario(scenario())


def test_a_flood_of_nothing_is_3013(compressing_server: ServerProcess) -> None:
    """Megabytes that inflate to nothing count as the bytes they are."""
    nothing = encode_frame(BINARY, b"\x00\x00\x00\xff\xff" * 13_000 + b"\x00", compressed=True)

    async def scenario() -> None:
        hits_before = await count_limit_hits(compressing_server, "client.byte_rate_limit")
        async with (
            undisturbed_traffic(compressing_server),
            await RawPeer.connect_websocket(compressing_server.port, "/ws", OFFER) as peer,
        ):
            sending = asyncio.create_task(peer.send(*[nothing] * 1000))
            assert (await peer.read_close_frame()).close_code == 3013
            await asyncio.gather(sending, return_exceptions=True)
        assert await count_limit_hits(compressing_server, "client.byte_rate_limit") == hits_before + 1

    run_scenario(scenario())


def test_exactly_the_limit_is_fine(compressing_server: ServerProcess) -> None:
    """64 KiB that came as a hundred bytes are a message like any other."""
    command = json.dumps({"id": 7, "publish": {"channel": "bare:x", "data": ""}}).encode()
    message = command.replace(b'""', b'"' + b"x" * (LIMIT - len(command)) + b'"')
    assert len(message) == LIMIT

    async def scenario() -> None:
        async with (
            undisturbed_traffic(compressing_server),
            await RawPeer.connect_websocket(compressing_server.port, headers=OFFER) as peer,
        ):
            # A room where nothing is said: it may come compressed, which a `RawPeer` does not read.
            await connect_and_subscribe(peer, "bare:quiet")
            await peer.send(encode_frame(TEXT, deflated(message), compressed=True))
            assert "publish" in await peer.read_reply(7)

    run_scenario(scenario())


@pytest.mark.parametrize("garbage", [b"", b"\xff\xff\xff", BOMB[:-3][:60], deflated(b"\xff")])
def test_what_is_no_compressed_text_is_1007(compressing_server: ServerProcess, garbage: bytes) -> None:
    """Broken, cut short, or not UTF-8 after all."""

    async def scenario() -> None:
        async with (
            undisturbed_traffic(compressing_server),
            await RawPeer.connect_websocket(compressing_server.port, headers=OFFER) as peer,
        ):
            await peer.send(encode_frame(TEXT, garbage, compressed=True))
            assert (await peer.read_close_frame()).close_code == 1007

    run_scenario(scenario())


def test_compression_that_nobody_agreed_on_is_1002(compressing_server: ServerProcess) -> None:
    """Without an offer the bit is an error, whatever the server is able to do."""

    async def scenario() -> None:
        async with (
            undisturbed_traffic(compressing_server),
            await RawPeer.connect_websocket(compressing_server.port) as peer,
        ):
            await peer.send(encode_frame(TEXT, deflated(b"{}"), compressed=True))
            assert (await peer.read_close_frame()).close_code == 1002

    run_scenario(scenario())
