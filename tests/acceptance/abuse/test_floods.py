"""Peers that send more than anyone needs: pings, pongs, messages, bytes, fragments, subscriptions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.background_traffic import CHANNEL, undisturbed_traffic
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import CONTINUATION, PING, PONG, TEXT, RawPeer, connect_and_subscribe, encode_frame
from tests.acceptance.server_process import PERMISSIVE_CONFIG, ServerProcess
from tests.acceptance.server_state import (
    assert_healthy,
    count_limit_hits,
    megabytes,
    read_metrics,
    wait_metric,
    wait_session_end,
)


@pytest.fixture(scope="module")
def low_rate_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    overrides = {"client.message_rate_limit": "300", "client.byte_rate_limit": "200KB"}
    with ServerProcess(tmp_path_factory.mktemp("low_rate_server"), PERMISSIVE_CONFIG, overrides) as server:
        yield server
        assert_healthy(server)


def publish(number: int, size: int = 1) -> bytes:
    return encode_frame(TEXT, json.dumps({"id": number, "publish": {"channel": "bare:x", "data": "x" * size}}).encode())


FLOODS = {
    "pings": ([encode_frame(PING, b"x" * 125)] * 2000, "client.message_rate_limit"),
    "pongs": ([encode_frame(PONG)] * 2000, "client.message_rate_limit"),
    "fragments": (
        [encode_frame(TEXT, b"{", final=False), *[encode_frame(CONTINUATION, final=False)] * 2000],
        "client.message_rate_limit",
    ),
    "messages": ([publish(number) for number in range(3, 2003)], "client.message_rate_limit"),
    "batches": (
        [encode_frame(TEXT, b"\n".join(b'{"id":%d,"presence":{"channel":"room"}}' % n for n in range(3, 1003)))],
        "client.message_rate_limit",
    ),
    "bytes": ([publish(number, 60_000) for number in range(3, 23)], "client.byte_rate_limit"),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_with_3013(low_rate_server: ServerProcess, flood: str) -> None:
    """Whatever it consists of, the flooder is told 3013 once its limit is reached, and only the flooder."""
    frames, limit = FLOODS[flood]

    async def scenario() -> None:
        hits_before = await count_limit_hits(low_rate_server, limit)
        before = low_rate_server.resident_bytes()
        async with undisturbed_traffic(low_rate_server), await RawPeer.connect_websocket(low_rate_server.port) as peer:
            client = await connect_and_subscribe(peer, CHANNEL)
            await send_until_cut(peer, *frames)
            close = await peer.read_close_frame()
            assert (close.close_code, close.payload[2:]) == (3013, b"too many requests")
            peer.close()
            await wait_session_end(low_rate_server, client, 3013)
        assert await count_limit_hits(low_rate_server, limit) == hits_before + 1
        assert low_rate_server.resident_bytes() - before < megabytes(4)

    run_scenario(scenario())


async def send_until_cut(peer: RawPeer, *frames: bytes) -> None:
    try:
        await peer.send(*frames)
    except OSError:
        return  # it was, before all was sent; the verdict has been received


def test_a_million_tiny_fragments_take_no_memory(permissive_server: ServerProcess) -> None:
    """Under the default limits as well: 3013 long before the end, and nothing is kept of them."""

    async def scenario() -> None:
        before = permissive_server.resident_bytes()
        async with (
            undisturbed_traffic(permissive_server),
            await RawPeer.connect_websocket(permissive_server.port) as peer,
        ):
            client = await connect_and_subscribe(peer, CHANNEL)
            await send_until_cut(
                peer, encode_frame(TEXT, final=False), encode_frame(CONTINUATION, final=False) * 1_000_000
            )
            assert (await peer.read_close_frame()).close_code == 3013
            peer.close()
            await wait_session_end(permissive_server, client, 3013)
        assert permissive_server.resident_bytes() - before < megabytes(4)

    run_scenario(scenario())


def test_a_subscribe_flood_gets_an_error_for_each_and_lives(permissive_server: ServerProcess) -> None:
    """Beyond channel_limit every subscribe is answered with error 106; the connection goes on as before."""
    limit, asked = 128, 5000

    async def scenario() -> None:
        hits_before = await count_limit_hits(permissive_server, "client.channel_limit")
        before = permissive_server.resident_bytes()
        async with undisturbed_traffic(permissive_server), JSONClient.connect(permissive_server.port) as greedy:
            replies: list[dict[str, Any]] = []
            for start in range(0, asked, 500):
                names = [f"bare:flood-{number}" for number in range(start, start + 500)]
                replies += await greedy.request_all([{"subscribe": {"channel": name}} for name in names])
            errors = [reply["error"]["code"] for reply in replies if "error" in reply]
            assert all("subscribe" in reply for reply in replies[:limit])
            assert errors == [106] * (asked - limit)
            await greedy.publish("bare:flood-0", "still here")
            await wait_until(lambda: greedy.received_data("bare:flood-0") == ["still here"], "the connection goes on")
            assert (await read_metrics(permissive_server))["beaconfire_subscriptions"] == limit + 1
        assert await count_limit_hits(permissive_server, "client.channel_limit") == hits_before + asked - limit
        await wait_metric(permissive_server, "beaconfire_subscriptions", 0)
        assert permissive_server.resident_bytes() - before < megabytes(6)

    run_scenario(scenario())


def test_coming_and_going_through_thousands_of_rooms_leaves_nothing(permissive_server: ServerProcess) -> None:
    """A client that enters and leaves 4,000 rooms, each new, is let; no room is left behind."""

    async def scenario() -> None:
        async with undisturbed_traffic(permissive_server), JSONClient.connect(permissive_server.port) as wanderer:
            for start in range(0, 4000, 50):
                names = [f"bare:stop-{number}" for number in range(start, start + 50)]
                replies = await wanderer.request_all([{"subscribe": {"channel": name}} for name in names])
                replies += await wanderer.request_all([{"unsubscribe": {"channel": name}} for name in names])
                assert not [reply for reply in replies if "error" in reply]
            assert (await read_metrics(permissive_server))["beaconfire_channels"] == 1

    run_scenario(scenario())


def test_replies_that_nobody_reads_are_bounded(permissive_server: ServerProcess) -> None:
    """A client that asks and asks and never reads the answers is slow: 3008, and memory stays."""

    async def scenario() -> None:
        async with JSONClient.connect(permissive_server.port, channels=[CHANNEL]) as teller:
            for _ in range(100):
                await teller.publish(CHANNEL, "x" * 20_000)
        before = permissive_server.resident_bytes()
        ask = encode_frame(TEXT, b'{"id":9,"history":{"channel":"room","limit":100}}')
        async with (
            undisturbed_traffic(permissive_server),
            await RawPeer.connect_websocket(permissive_server.port, receive_buffer=4096) as peer,
        ):
            client = await connect_and_subscribe(peer, CHANNEL)
            await send_until_cut(peer, ask * 200)
            await wait_session_end(permissive_server, client, 3008)
        assert permissive_server.resident_bytes() - before < megabytes(20)

    run_scenario(scenario())
