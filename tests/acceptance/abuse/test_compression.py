"""Compressed messages that inflate beyond the size limit, inflate to nothing, or are invalid (RFC 7692)."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Iterator

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
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_limit_hits, healthy_server, megabytes

SIZE_LIMIT_BYTES = 65536
SIZE_LIMIT = "websocket.message_size_limit"
COMPRESSION_OFFER = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")]


@pytest.fixture(scope="module")
def compressing_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A permissive server that accepts compressed messages."""
    with healthy_server(tmp_path_factory.mktemp("compressing"), {"websocket.compression": "true"}) as process:
        yield process


def compress(data: bytes, times: int = 1) -> bytes:
    """The payload of a compressed message. The message is `data`, repeated `times` times."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join(compressor.compress(data) for _ in range(times)) + compressor.flush(zlib.Z_SYNC_FLUSH)[:-4]


BOMB = compress(bytes(1 << 20), 60)
"""60 MB, compressed to less than the limit: a ratio of 1,000 to 1."""

BOMBS = {
    "in one frame": [encode_frame(BINARY, BOMB, compressed=True)],
    "in a small frame": [encode_frame(TEXT, compress(b"x", 2 * SIZE_LIMIT_BYTES), compressed=True)],
    "in fragments": [
        encode_frame(BINARY, b"", final=False, compressed=True),
        *(encode_frame(CONTINUATION, BOMB[at : at + 100], final=False) for at in range(0, len(BOMB), 100)),
    ],
    "one byte too many": [encode_frame(TEXT, compress(b"x" * (SIZE_LIMIT_BYTES + 1)), compressed=True)],
    "many empty blocks": [
        encode_frame(BINARY, b"", final=False, compressed=True),
        *[encode_frame(CONTINUATION, b"\x00\x00\x00\xff\xff" * 1000, final=False)] * 14,
    ],
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("path", [NATIVE_PATH, "/ws"])
def test_message_that_inflates_beyond_the_limit_is_closed_with_1009(
    compressing_server: ServerProcess, path: str, bomb: str
) -> None:
    """50 clients send such messages at once: memory stays flat, and other clients are undisturbed."""
    count = 50

    async def send_bomb(peer: RawPeer) -> None:
        await peer.send(*BOMBS[bomb])
        close = await peer.read_close_frame()
        assert (close.close_code, close.payload[2:]) == (1009, b"message exceeds 65536 bytes")

    async def scenario() -> None:
        hits_before = await count_limit_hits(compressing_server, SIZE_LIMIT)
        async with (
            undisturbed_traffic(compressing_server),
            open_peers(
                count, lambda: RawPeer.connect_websocket(compressing_server.port, path, COMPRESSION_OFFER)
            ) as peers,
        ):
            before = compressing_server.resident_bytes()
            await asyncio.gather(*map(send_bomb, peers))
            assert compressing_server.resident_bytes() - before < megabytes(8)
        assert await count_limit_hits(compressing_server, SIZE_LIMIT) == hits_before + count

    run_scenario(scenario())


def test_flood_of_empty_compressed_messages_is_closed_with_3013(compressing_server: ServerProcess) -> None:
    """The byte rate limit counts the compressed size of a message, also if the message inflates to nothing."""
    empty_message = encode_frame(BINARY, b"\x00\x00\x00\xff\xff" * 13_000 + b"\x00", compressed=True)

    async def scenario() -> None:
        hits_before = await count_limit_hits(compressing_server, "client.byte_rate_limit")
        async with (
            undisturbed_traffic(compressing_server),
            await RawPeer.connect_websocket(compressing_server.port, "/ws", COMPRESSION_OFFER) as peer,
        ):
            sending = asyncio.create_task(peer.send(*[empty_message] * 1000))
            assert (await peer.read_close_frame()).close_code == 3013
            await asyncio.gather(sending, return_exceptions=True)
        assert await count_limit_hits(compressing_server, "client.byte_rate_limit") == hits_before + 1

    run_scenario(scenario())


def test_message_of_exactly_the_limit_is_accepted(compressing_server: ServerProcess) -> None:
    """A message of 64 KiB that is compressed to 100 bytes is processed."""
    command = json.dumps({"id": 7, "publish": {"channel": "bare:x", "data": ""}}).encode()
    message = command.replace(b'""', b'"' + b"x" * (SIZE_LIMIT_BYTES - len(command)) + b'"')
    assert len(message) == SIZE_LIMIT_BYTES

    async def scenario() -> None:
        async with (
            undisturbed_traffic(compressing_server),
            await RawPeer.connect_websocket(compressing_server.port, headers=COMPRESSION_OFFER) as peer,
        ):
            # A channel without publications: the server may compress them, and `RawPeer` does not inflate.
            await connect_and_subscribe(peer, "bare:quiet")
            await peer.send(encode_frame(TEXT, compress(message), compressed=True))
            assert "publish" in await peer.read_reply(7)

    run_scenario(scenario())


@pytest.mark.parametrize("garbage", [b"", b"\xff\xff\xff", BOMB[:-3][:60], compress(b"\xff")])
def test_invalid_compressed_text_is_closed_with_1007(compressing_server: ServerProcess, garbage: bytes) -> None:
    """The data is invalid, incomplete, or inflates to invalid UTF-8."""

    async def scenario() -> None:
        async with (
            undisturbed_traffic(compressing_server),
            await RawPeer.connect_websocket(compressing_server.port, headers=COMPRESSION_OFFER) as peer,
        ):
            await peer.send(encode_frame(TEXT, garbage, compressed=True))
            assert (await peer.read_close_frame()).close_code == 1007

    run_scenario(scenario())


def test_compressed_frame_without_negotiation_is_closed_with_1002(compressing_server: ServerProcess) -> None:
    """RSV1 is an error if the client has not offered compression, also if the server supports compression."""

    async def scenario() -> None:
        async with (
            undisturbed_traffic(compressing_server),
            await RawPeer.connect_websocket(compressing_server.port) as peer,
        ):
            await peer.send(encode_frame(TEXT, compress(b"{}"), compressed=True))
            assert (await peer.read_close_frame()).close_code == 1002

    run_scenario(scenario())
