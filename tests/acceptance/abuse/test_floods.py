"""Peers that send more than anyone needs: pings, pongs, messages, bytes, fragments, subscriptions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.abuse.surroundings import (
    OPEN_HOUSE,
    ROOM,
    assert_healthy,
    enter,
    figures,
    hits,
    megabytes,
    undisturbed,
    wait_ended,
    wait_figure,
)
from tests.acceptance.harness import ServerProcess
from tests.acceptance.peer import CONTINUATION, PING, PONG, TEXT, Client, Peer, frame, run, until


@pytest.fixture(scope="module")
def frugal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    overrides = {"client.message_rate_limit": "300", "client.byte_rate_limit": "200KB"}
    with ServerProcess(tmp_path_factory.mktemp("frugal"), OPEN_HOUSE, overrides) as server:
        yield server
        assert_healthy(server)


def publish(number: int, size: int = 1) -> bytes:
    return frame(TEXT, json.dumps({"id": number, "publish": {"channel": "bare:x", "data": "x" * size}}).encode())


FLOODS = {
    "pings": ([frame(PING, b"x" * 125)] * 2000, "client.message_rate_limit"),
    "pongs": ([frame(PONG)] * 2000, "client.message_rate_limit"),
    "fragments": (
        [frame(TEXT, b"{", final=False), *[frame(CONTINUATION, final=False)] * 2000],
        "client.message_rate_limit",
    ),
    "messages": ([publish(number) for number in range(3, 2003)], "client.message_rate_limit"),
    "batches": (
        [frame(TEXT, b"\n".join(b'{"id":%d,"presence":{"channel":"room"}}' % n for n in range(3, 1003)))],
        "client.message_rate_limit",
    ),
    "bytes": ([publish(number, 60_000) for number in range(3, 23)], "client.byte_rate_limit"),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_with_3013(frugal: ServerProcess, flood: str) -> None:
    """Whatever it consists of, the flooder is told 3013 once its limit is reached, and only the flooder."""
    frames, limit = FLOODS[flood]

    async def scenario() -> None:
        hits_before = await hits(frugal, limit)
        before = frugal.resident_bytes()
        async with undisturbed(frugal), await Peer.open(frugal.port) as peer:
            client = await enter(peer)
            await send_until_cut(peer, *frames)
            close = await peer.verdict()
            assert (close.code, close.payload[2:]) == (3013, b"too many requests")
            peer.close()
            await wait_ended(frugal, client, 3013)
        assert await hits(frugal, limit) == hits_before + 1
        assert frugal.resident_bytes() - before < megabytes(4)

    run(scenario())


async def send_until_cut(peer: Peer, *frames: bytes) -> None:
    try:
        await peer.send(*frames)
    except OSError:
        return  # it was, before all was sent; the verdict has been received


def test_a_million_tiny_fragments_take_no_memory(open_house: ServerProcess) -> None:
    """Under the default limits as well: 3013 long before the end, and nothing is kept of them."""

    async def scenario() -> None:
        before = open_house.resident_bytes()
        async with undisturbed(open_house), await Peer.open(open_house.port) as peer:
            client = await enter(peer)
            await send_until_cut(peer, frame(TEXT, final=False), frame(CONTINUATION, final=False) * 1_000_000)
            assert (await peer.verdict()).code == 3013
            peer.close()
            await wait_ended(open_house, client, 3013)
        assert open_house.resident_bytes() - before < megabytes(4)

    run(scenario())


def test_a_subscribe_flood_gets_an_error_for_each_and_lives(open_house: ServerProcess) -> None:
    """Beyond channel_limit every subscribe is answered with error 106; the connection goes on as before."""
    limit, asked = 128, 5000

    async def scenario() -> None:
        hits_before = await hits(open_house, "client.channel_limit")
        before = open_house.resident_bytes()
        async with undisturbed(open_house), Client.connect(open_house.port) as greedy:
            replies: list[dict[str, Any]] = []
            for start in range(0, asked, 500):
                names = [f"bare:flood-{number}" for number in range(start, start + 500)]
                replies += await greedy.ask_all([{"subscribe": {"channel": name}} for name in names])
            errors = [reply["error"]["code"] for reply in replies if "error" in reply]
            assert all("subscribe" in reply for reply in replies[:limit])
            assert errors == [106] * (asked - limit)
            await greedy.publish("bare:flood-0", "still here")
            await until(lambda: greedy.received("bare:flood-0") == ["still here"], "the connection goes on")
            assert (await figures(open_house))["beaconfire_subscriptions"] == limit + 1
        assert await hits(open_house, "client.channel_limit") == hits_before + asked - limit
        await wait_figure(open_house, "beaconfire_subscriptions", 0)
        assert open_house.resident_bytes() - before < megabytes(6)

    run(scenario())


def test_coming_and_going_through_thousands_of_rooms_leaves_nothing(open_house: ServerProcess) -> None:
    """A client that enters and leaves 4,000 rooms, each new, is let; no room is left behind."""

    async def scenario() -> None:
        async with undisturbed(open_house), Client.connect(open_house.port) as wanderer:
            for start in range(0, 4000, 50):
                names = [f"bare:stop-{number}" for number in range(start, start + 50)]
                replies = await wanderer.ask_all([{"subscribe": {"channel": name}} for name in names])
                replies += await wanderer.ask_all([{"unsubscribe": {"channel": name}} for name in names])
                assert not [reply for reply in replies if "error" in reply]
            assert (await figures(open_house))["beaconfire_channels"] == 1

    run(scenario())


def test_replies_that_nobody_reads_are_bounded(open_house: ServerProcess) -> None:
    """A client that asks and asks and never reads the answers is slow: 3008, and memory stays."""

    async def scenario() -> None:
        async with Client.connect(open_house.port, channels=[ROOM]) as teller:
            for _ in range(100):
                await teller.publish(ROOM, "x" * 20_000)
        before = open_house.resident_bytes()
        ask = frame(TEXT, b'{"id":9,"history":{"channel":"room","limit":100}}')
        async with undisturbed(open_house), await Peer.open(open_house.port, receive_buffer=4096) as peer:
            client = await enter(peer)
            await send_until_cut(peer, ask * 200)
            await wait_ended(open_house, client, 3008)
        assert open_house.resident_bytes() - before < megabytes(20)

    run(scenario())
