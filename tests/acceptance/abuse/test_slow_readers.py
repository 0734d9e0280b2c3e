"""Peers that read slowly or not at all, in a room where much is said."""

from __future__ import annotations

import json
from typing import Any

from tests.acceptance.abuse.conftest import Serve
from tests.acceptance.abuse.surroundings import (
    ROOM,
    ended_with,
    enter,
    hits,
    http,
    megabytes,
    undisturbed,
    wait_ended,
)
from tests.acceptance.harness import ServerProcess
from tests.acceptance.peer import Client, Peer, company, run, until

TEXT_BYTES = 50_000
BATCH = 20
"""Publications in a megabyte."""
STALLED = 20
SMALL_BUFFER = 4096


async def fill(server: ServerProcess, megabytes_total: int, room: str = ROOM, listener: Client | None = None) -> int:
    """Publishes that much through the HTTP API. Returns the largest resident memory seen meanwhile, in bytes.

    A `listener` is waited for after each megabyte: one that reads, but not always at once, is not to be cut as slow.
    """
    most = 0
    known = len(batches(listener, room)) if listener is not None else 0
    for batch in range(megabytes_total):
        commands = [
            {"publish": {"channel": room, "data": {"batch": batch, "text": "x" * TEXT_BYTES}}} for _ in range(BATCH)
        ]
        status, answer = await http(server, "/api/batch", json.dumps({"commands": commands}).encode())
        assert status == 200, answer
        if listener is not None:
            await _have(listener, room, known + (batch + 1) * BATCH)
        most = max(most, server.resident_bytes())
    return most


async def _have(listener: Client, room: str, count: int) -> None:
    await until(lambda: len(batches(listener, room)) >= count, f"the listener has {count} publications")


def batches(client: Client, room: str = ROOM) -> list[int]:
    """Which of the publications of `fill` a client got."""
    return [data["batch"] for data in client.received(room) if "batch" in data]


def test_readers_that_never_read_are_cut_and_cost_little(open_house: ServerProcess) -> None:
    """20 stalled readers and 60 MB: each is told 3008, memory hardly grows, the neighbours miss nothing.

    Twice, because the C library keeps some of what the first wave gives back, and the second must make do with it.
    """

    async def wave() -> None:
        before = open_house.resident_bytes()
        hits_before = await hits(open_house, "client.queue_max_size")
        async with (
            company(STALLED, lambda: Peer.open(open_house.port, receive_buffer=SMALL_BUFFER)) as peers,
            undisturbed(open_house) as neighbour,
        ):
            clients = [await enter(peer) for peer in peers]
            most = await fill(open_house, 60, listener=neighbour)
            await until(lambda: all(ended_with(open_house, client) for client in clients), "all are cut")
            await until(lambda: len(batches(neighbour)) == 60 * BATCH, "the neighbour has everything")
        assert batches(neighbour) == [index // BATCH for index in range(60 * BATCH)]
        assert {ended_with(open_house, client) for client in clients} == {3008}
        assert await hits(open_house, "client.queue_max_size") == hits_before + STALLED
        assert most - before < megabytes(STALLED), "at most a queue's worth each"

    async def scenario() -> None:
        await fill(open_house, 10)  # what the room's history and the API need is no matter of this test
        await wave()
        before = open_house.resident_bytes()
        await wave()
        await until(lambda: open_house.resident_bytes() - before < megabytes(6), "memory is back")

    run(scenario())


def test_a_stalled_reader_is_told_why_if_it_reads_again_in_time(open_house: ServerProcess) -> None:
    """What was on its way arrives, then the close frame 3008."""

    async def scenario() -> None:
        async with (
            await Peer.open(open_house.port, receive_buffer=SMALL_BUFFER) as peer,
            undisturbed(open_house) as neighbour,
        ):
            client = await enter(peer)
            await fill(open_house, 12, listener=neighbour)
            await wait_ended(open_house, client, 3008)
            close = await peer.verdict()
            assert (close.code, close.payload[2:]) == (3008, b"slow")

    run(scenario())


def test_a_reader_that_keeps_up_in_the_end_stays(open_house: ServerProcess) -> None:
    """Five times as much as fits between server and client, read late each time: nothing is missing, nobody is cut."""

    async def scenario() -> None:
        room = "bare:late"
        async with await Peer.open(open_house.port, receive_buffer=SMALL_BUFFER) as peer, undisturbed(open_house):
            client = await enter(peer, room)
            got = 0
            for _ in range(5):
                await fill(open_house, 1, room)
                while got < BATCH:
                    got += sum("push" in message for message in await peer.messages())
                assert got == BATCH
                got = 0
            assert ended_with(open_house, client) == 0

    run(scenario())


def test_a_reader_that_wants_the_latest_is_never_too_slow(open_house: ServerProcess) -> None:
    """Twenty times what would have it cut: it is owed one publication, which it gets when it reads, with a count."""

    async def scenario() -> None:
        room, total = "bare:latest", 20
        async with await Peer.open(open_house.port, receive_buffer=SMALL_BUFFER) as peer, undisturbed(open_house):
            client = await enter(peer, room, conflate={})
            before = open_house.resident_bytes()
            assert await fill(open_house, total, room) - before < megabytes(4)
            pubs: list[dict[str, Any]] = []
            while not pubs or pubs[-1]["data"]["batch"] < total - 1:
                pubs += [message["push"]["pub"] for message in await peer.messages() if "push" in message]
            assert sum(1 + pub.get("conflated", 0) for pub in pubs) == total * BATCH
            assert len(pubs) < total * BATCH / 2
            assert ended_with(open_house, client) == 0

    run(scenario())


def test_a_peer_that_takes_nothing_is_cut_after_the_write_timeout(serve: Serve) -> None:
    """Where the queue is large and little is said, time decides: 3009."""
    server = serve({"websocket.write_timeout": "1s", "client.queue_max_size": "64MiB"})

    async def scenario() -> None:
        async with await Peer.open(server.port, receive_buffer=SMALL_BUFFER) as peer, undisturbed(server):
            client = await enter(peer, "bare:quiet")
            await fill(server, 8, "bare:quiet")
            await wait_ended(server, client, 3009)
            assert await hits(server, "websocket.write_timeout") == 1
            await peer.ended()

    run(scenario())
