"""Peers that flood the server with pings, pongs, messages, bytes, fragments or subscriptions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.background_traffic import CHANNEL, undisturbed_traffic
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import (
    CONTINUATION,
    PING,
    PONG,
    SMALL_BUFFER,
    TEXT,
    RawPeer,
    connect_and_subscribe,
    encode_frame,
)
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import (
    count_limit_hits,
    healthy_server,
    megabytes,
    read_metrics,
    wait_metric,
    wait_session_end,
)


@pytest.fixture(scope="module")
def low_rate_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with small rate limits."""
    overrides = {"client.message_rate_limit": "300", "client.byte_rate_limit": "200KB"}
    with healthy_server(tmp_path_factory.mktemp("low_rate_server"), overrides) as process:
        yield process


def encode_publish(number: int, size: int = 1) -> bytes:
    return encode_frame(TEXT, json.dumps({"id": number, "publish": {"channel": "bare:x", "data": "x" * size}}).encode())


FLOODS = {
    "pings": ([encode_frame(PING, b"x" * 125)] * 2000, "client.message_rate_limit"),
    "pongs": ([encode_frame(PONG)] * 2000, "client.message_rate_limit"),
    "fragments": (
        [encode_frame(TEXT, b"{", final=False), *[encode_frame(CONTINUATION, final=False)] * 2000],
        "client.message_rate_limit",
    ),
    "messages": ([encode_publish(number) for number in range(3, 2003)], "client.message_rate_limit"),
    "batches": (
        [encode_frame(TEXT, b"\n".join(b'{"id":%d,"presence":{"channel":"room"}}' % n for n in range(3, 1003)))],
        "client.message_rate_limit",
    ),
    "bytes": ([encode_publish(number, 60_000) for number in range(3, 23)], "client.byte_rate_limit"),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_flood_is_closed_with_3013(low_rate_server: ServerProcess, flood: str) -> None:
    """The server closes the flooding connection at the rate limit, and other clients are undisturbed."""
    frames, limit = FLOODS[flood]

    async def scenario() -> None:
        hits_before = await count_limit_hits(low_rate_server, limit)
        before = low_rate_server.resident_bytes()
        async with undisturbed_traffic(low_rate_server), await RawPeer.connect_websocket(low_rate_server.port) as peer:
            client = await connect_and_subscribe(peer, CHANNEL)
            await send_until_reset(peer, *frames)
            close = await peer.read_close_frame()
            assert (close.close_code, close.payload[2:]) == (3013, b"too many requests")
            peer.close()
            await wait_session_end(low_rate_server, client, 3013)
        assert await count_limit_hits(low_rate_server, limit) == hits_before + 1
        assert low_rate_server.resident_bytes() - before < megabytes(4)

    run_scenario(scenario())


async def send_until_reset(peer: RawPeer, *frames: bytes) -> None:
    try:
        await peer.send(*frames)
    except OSError:
        return  # the server reset the connection; its close frame has been received


def test_million_empty_fragments_are_closed_with_3013_and_take_no_memory(permissive_server: ServerProcess) -> None:
    """The default rate limit applies before all fragments are sent, and the server keeps no data of the fragments."""

    async def scenario() -> None:
        before = permissive_server.resident_bytes()
        async with (
            undisturbed_traffic(permissive_server),
            await RawPeer.connect_websocket(permissive_server.port) as peer,
        ):
            client = await connect_and_subscribe(peer, CHANNEL)
            await send_until_reset(
                peer, encode_frame(TEXT, final=False), encode_frame(CONTINUATION, final=False) * 1_000_000
            )
            assert (await peer.read_close_frame()).close_code == 3013
            peer.close()
            await wait_session_end(permissive_server, client, 3013)
        assert permissive_server.resident_bytes() - before < megabytes(4)

    run_scenario(scenario())


def test_each_subscribe_beyond_channel_limit_gets_error_106(permissive_server: ServerProcess) -> None:
    """The connection stays open, and its subscriptions within the limit keep working."""
    limit, requested = 128, 5000

    async def scenario() -> None:
        hits_before = await count_limit_hits(permissive_server, "client.channel_limit")
        before = permissive_server.resident_bytes()
        async with undisturbed_traffic(permissive_server), JSONClient.connect(permissive_server.port) as client:
            replies: list[dict[str, Any]] = []
            for start in range(0, requested, 500):
                names = [f"bare:flood-{number}" for number in range(start, start + 500)]
                replies += await client.request_all([{"subscribe": {"channel": name}} for name in names])
            errors = [reply["error"]["code"] for reply in replies if "error" in reply]
            assert all("subscribe" in reply for reply in replies[:limit])
            assert errors == [106] * (requested - limit)
            await client.publish("bare:flood-0", "still here")
            await wait_until(lambda: client.received_data("bare:flood-0") == ["still here"], "the publication arrived")
            assert (await read_metrics(permissive_server))["beaconfire_subscriptions"] == limit + 1
        assert await count_limit_hits(permissive_server, "client.channel_limit") == hits_before + requested - limit
        await wait_metric(permissive_server, "beaconfire_subscriptions", 0)
        assert permissive_server.resident_bytes() - before < megabytes(6)

    run_scenario(scenario())


def test_unsubscribed_channels_are_removed(permissive_server: ServerProcess) -> None:
    """A client may subscribe to 4,000 channels and unsubscribe again, and the server keeps none of the channels."""

    async def scenario() -> None:
        async with undisturbed_traffic(permissive_server), JSONClient.connect(permissive_server.port) as client:
            for start in range(0, 4000, 50):
                names = [f"bare:stop-{number}" for number in range(start, start + 50)]
                replies = await client.request_all([{"subscribe": {"channel": name}} for name in names])
                replies += await client.request_all([{"unsubscribe": {"channel": name}} for name in names])
                assert not [reply for reply in replies if "error" in reply]
            assert (await read_metrics(permissive_server))["beaconfire_channels"] == 1

    run_scenario(scenario())


def test_client_that_reads_no_replies_is_closed_with_3008(permissive_server: ServerProcess) -> None:
    """A client that requests history again and again without reading is slow, and memory use stays bounded."""

    async def scenario() -> None:
        async with JSONClient.connect(permissive_server.port, channels=[CHANNEL]) as publisher:
            for _ in range(100):
                await publisher.publish(CHANNEL, "x" * 20_000)
        before = permissive_server.resident_bytes()
        request = encode_frame(TEXT, b'{"id":9,"history":{"channel":"room","limit":100}}')
        async with (
            undisturbed_traffic(permissive_server),
            await RawPeer.connect_websocket(permissive_server.port, receive_buffer=SMALL_BUFFER) as peer,
        ):
            client = await connect_and_subscribe(peer, CHANNEL)
            await send_until_reset(peer, request * 200)
            await wait_session_end(permissive_server, client, 3008)
        assert permissive_server.resident_bytes() - before < megabytes(20)

    run_scenario(scenario())
