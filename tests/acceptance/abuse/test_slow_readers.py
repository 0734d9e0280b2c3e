"""Peers that read slowly or not at all, in a room where much is said."""

from __future__ import annotations

import json
from typing import Any

from tests.acceptance.background_traffic import CHANNEL, undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import RawPeer, connect_and_subscribe, open_peers
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_limit_hits, http_request, megabytes, session_end_code, wait_session_end

TEXT_BYTES = 50_000
BATCH = 20
"""Publications in a megabyte."""
STALLED = 20
SMALL_BUFFER = 4096


async def fill(
    server: ServerProcess, megabytes_total: int, room: str = CHANNEL, listener: JSONClient | None = None
) -> int:
    """Publishes that much through the HTTP API. Returns the largest resident memory seen meanwhile, in bytes.

    A `listener` is waited for after each megabyte: one that reads, but not always at once, is not to be cut as slow.
    """
    most = 0
    known = len(batches(listener, room)) if listener is not None else 0
    for batch in range(megabytes_total):
        commands = [
            {"publish": {"channel": room, "data": {"batch": batch, "text": "x" * TEXT_BYTES}}} for _ in range(BATCH)
        ]
        status, answer = await http_request(server, "/api/batch", json.dumps({"commands": commands}).encode())
        assert status == 200, answer
        if listener is not None:
            await _have(listener, room, known + (batch + 1) * BATCH)
        most = max(most, server.resident_bytes())
    return most


async def _have(listener: JSONClient, room: str, count: int) -> None:
    await wait_until(lambda: len(batches(listener, room)) >= count, f"the listener has {count} publications")


def batches(client: JSONClient, room: str = CHANNEL) -> list[int]:
    """Which of the publications of `fill` a client got."""
    return [data["batch"] for data in client.received_data(room) if "batch" in data]


def test_readers_that_never_read_are_cut_and_cost_little(permissive_server: ServerProcess) -> None:
    """20 stalled readers and 60 MB: each is told 3008, memory hardly grows, the neighbours miss nothing.

    Twice, because the C library keeps some of what the first wave gives back, and the second must make do with it.
    """

    async def wave() -> None:
        before = permissive_server.resident_bytes()
        hits_before = await count_limit_hits(permissive_server, "client.queue_max_size")
        async with (
            open_peers(
                STALLED, lambda: RawPeer.connect_websocket(permissive_server.port, receive_buffer=SMALL_BUFFER)
            ) as peers,
            undisturbed_traffic(permissive_server) as neighbour,
        ):
            clients = [await connect_and_subscribe(peer, CHANNEL) for peer in peers]
            most = await fill(permissive_server, 60, listener=neighbour)
            await wait_until(
                lambda: all(session_end_code(permissive_server, client) for client in clients), "all are cut"
            )
            await wait_until(lambda: len(batches(neighbour)) == 60 * BATCH, "the neighbour has everything")
        assert batches(neighbour) == [index // BATCH for index in range(60 * BATCH)]
        assert {session_end_code(permissive_server, client) for client in clients} == {3008}
        assert await count_limit_hits(permissive_server, "client.queue_max_size") == hits_before + STALLED
        assert most - before < megabytes(STALLED), "at most a queue's worth each"

    async def scenario() -> None:
        await fill(permissive_server, 10)  # what the room's history and the API need is no matter of this test
        await wave()
        before = permissive_server.resident_bytes()
        await wave()
        await wait_until(lambda: permissive_server.resident_bytes() - before < megabytes(6), "memory is back")

    run_scenario(scenario())


def test_a_stalled_reader_is_told_why_if_it_reads_again_in_time(permissive_server: ServerProcess) -> None:
    """What was on its way arrives, then the close frame 3008."""

    async def scenario() -> None:
        async with (
            await RawPeer.connect_websocket(permissive_server.port, receive_buffer=SMALL_BUFFER) as peer,
            undisturbed_traffic(permissive_server) as neighbour,
        ):
            client = await connect_and_subscribe(peer, CHANNEL)
            await fill(permissive_server, 12, listener=neighbour)
            await wait_session_end(permissive_server, client, 3008)
            close = await peer.read_close_frame()
            assert (close.close_code, close.payload[2:]) == (3008, b"slow")

    run_scenario(scenario())


def test_a_reader_that_keeps_up_in_the_end_stays(permissive_server: ServerProcess) -> None:
    """Five times as much as fits between server and client, read late each time: nothing is missing, nobody is cut."""

    async def scenario() -> None:
        room = "bare:late"
        async with (
            await RawPeer.connect_websocket(permissive_server.port, receive_buffer=SMALL_BUFFER) as peer,
            undisturbed_traffic(permissive_server),
        ):
            client = await connect_and_subscribe(peer, room)
            got = 0
            for _ in range(5):
                await fill(permissive_server, 1, room)
                while got < BATCH:
                    got += sum("push" in message for message in await peer.read_messages())
                assert got == BATCH
                got = 0
            assert session_end_code(permissive_server, client) == 0

    run_scenario(scenario())


def test_a_reader_that_wants_the_latest_is_never_too_slow(permissive_server: ServerProcess) -> None:
    """Twenty times what would have it cut: it is owed one publication, which it gets when it reads, with a count."""

    async def scenario() -> None:
        room, total = "bare:latest", 20
        async with (
            await RawPeer.connect_websocket(permissive_server.port, receive_buffer=SMALL_BUFFER) as peer,
            undisturbed_traffic(permissive_server),
        ):
            client = await connect_and_subscribe(peer, room, conflate={})
            before = permissive_server.resident_bytes()
            assert await fill(permissive_server, total, room) - before < megabytes(4)
            pubs: list[dict[str, Any]] = []
            while not pubs or pubs[-1]["data"]["batch"] < total - 1:
                pubs += [message["push"]["pub"] for message in await peer.read_messages() if "push" in message]
            assert sum(1 + pub.get("conflated", 0) for pub in pubs) == total * BATCH
            assert len(pubs) < total * BATCH / 2
            assert session_end_code(permissive_server, client) == 0

    run_scenario(scenario())


def test_a_peer_that_takes_nothing_is_cut_after_the_write_timeout(start_server: StartServer) -> None:
    """Where the queue is large and little is said, time decides: 3009."""
    server = start_server({"websocket.write_timeout": "1s", "client.queue_max_size": "64MiB"})

    async def scenario() -> None:
        async with (
            await RawPeer.connect_websocket(server.port, receive_buffer=SMALL_BUFFER) as peer,
            undisturbed_traffic(server),
        ):
            client = await connect_and_subscribe(peer, "bare:quiet")
            await fill(server, 8, "bare:quiet")
            await wait_session_end(server, client, 3009)
            assert await count_limit_hits(server, "websocket.write_timeout") == 1
            await peer.wait_closed()

    run_scenario(scenario())
