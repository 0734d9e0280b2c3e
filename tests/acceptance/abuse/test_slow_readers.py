"""WebSocket peers that read slowly or not at all, in a channel with many publications."""

from __future__ import annotations

from typing import Any

from tests.acceptance.abuse.large_publications import (
    PUBLICATIONS_PER_MB,
    publish_megabytes,
    received_batches,
)
from tests.acceptance.background_traffic import CHANNEL, undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.raw_peer import SMALL_BUFFER, RawPeer, connect_and_subscribe, open_peers
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_limit_hits, megabytes, session_end_code, wait_session_end

STALLED_PEERS = 20


def test_peer_that_reads_nothing_is_disconnected_with_3008(permissive_server: ServerProcess) -> None:
    """20 peers read nothing of 60 MB. Memory grows by at most one outbox per peer, and other clients are undisturbed.

    The test does this twice, because the allocator keeps some memory of the first round, which the second reuses.
    """

    async def run_round() -> None:
        before = permissive_server.resident_bytes()
        hits_before = await count_limit_hits(permissive_server, "client.queue_max_size")
        async with (
            open_peers(
                STALLED_PEERS, lambda: RawPeer.connect_websocket(permissive_server.port, receive_buffer=SMALL_BUFFER)
            ) as peers,
            undisturbed_traffic(permissive_server) as subscriber,
        ):
            clients = [await connect_and_subscribe(peer, CHANNEL) for peer in peers]
            peak = await publish_megabytes(permissive_server, 60, subscriber=subscriber)
            await wait_until(
                lambda: all(session_end_code(permissive_server, client) for client in clients),
                "all stalled peers are disconnected",
            )
            await wait_until(
                lambda: len(received_batches(subscriber)) == 60 * PUBLICATIONS_PER_MB,
                "the subscriber has all publications",
            )
        assert received_batches(subscriber) == [
            index // PUBLICATIONS_PER_MB for index in range(60 * PUBLICATIONS_PER_MB)
        ]
        assert {session_end_code(permissive_server, client) for client in clients} == {3008}
        assert await count_limit_hits(permissive_server, "client.queue_max_size") == hits_before + STALLED_PEERS
        assert peak - before < megabytes(STALLED_PEERS), "at most client.queue_max_size per peer"

    async def scenario() -> None:
        await publish_megabytes(
            permissive_server, 10
        )  # history and server API allocate their memory before the measurement
        await run_round()
        before = permissive_server.resident_bytes()
        await run_round()
        await wait_until(lambda: permissive_server.resident_bytes() - before < megabytes(6), "the memory is freed")

    run_scenario(scenario())


def test_slow_peer_that_reads_before_the_close_timeout_gets_the_close_frame(permissive_server: ServerProcess) -> None:
    """The peer receives the data that was already written, and then the close frame with 3008."""

    async def scenario() -> None:
        async with (
            await RawPeer.connect_websocket(permissive_server.port, receive_buffer=SMALL_BUFFER) as peer,
            undisturbed_traffic(permissive_server) as subscriber,
        ):
            client = await connect_and_subscribe(peer, CHANNEL)
            await publish_megabytes(permissive_server, 12, subscriber=subscriber)
            await wait_session_end(permissive_server, client, 3008)
            close = await peer.read_close_frame()
            assert (close.close_code, close.payload[2:]) == (3008, b"slow")

    run_scenario(scenario())


def test_peer_that_reads_late_stays_connected(permissive_server: ServerProcess) -> None:
    """The peer reads each megabyte late, five times, and receives all publications."""

    async def scenario() -> None:
        channel = "bare:late"
        async with (
            await RawPeer.connect_websocket(permissive_server.port, receive_buffer=SMALL_BUFFER) as peer,
            undisturbed_traffic(permissive_server),
        ):
            client = await connect_and_subscribe(peer, channel)
            for _ in range(5):
                received = 0
                await publish_megabytes(permissive_server, 1, channel)
                while received < PUBLICATIONS_PER_MB:
                    received += sum("push" in message for message in await peer.read_messages())
                assert received == PUBLICATIONS_PER_MB
            assert session_end_code(permissive_server, client) == 0

    run_scenario(scenario())


def test_slow_subscriber_with_conflation_gets_the_latest_publication(permissive_server: ServerProcess) -> None:
    """40 MB wait for a peer that reads nothing. The peer stays connected and gets the count of conflated ones.

    A server that has just started grows by some 6 MB, because no earlier test made it allocate its buffers.
    """

    async def scenario() -> None:
        channel, total = "bare:latest", 40
        async with (
            await RawPeer.connect_websocket(permissive_server.port, receive_buffer=SMALL_BUFFER) as peer,
            undisturbed_traffic(permissive_server),
        ):
            client = await connect_and_subscribe(peer, channel, conflate={})
            before = permissive_server.resident_bytes()
            assert await publish_megabytes(permissive_server, total, channel) - before < megabytes(8)
            publications: list[dict[str, Any]] = []
            while not publications or publications[-1]["data"]["batch"] < total - 1:
                publications += [message["push"]["pub"] for message in await peer.read_messages() if "push" in message]
            assert sum(1 + each.get("conflated", 0) for each in publications) == total * PUBLICATIONS_PER_MB
            assert len(publications) < total * PUBLICATIONS_PER_MB / 2
            assert session_end_code(permissive_server, client) == 0

    run_scenario(scenario())


def test_peer_that_reads_nothing_is_disconnected_with_3009_after_the_write_timeout(start_server: StartServer) -> None:
    """The write timeout applies where `client.queue_max_size` is not reached."""
    server = start_server({"websocket.write_timeout": "1s", "client.queue_max_size": "64MiB"})

    async def scenario() -> None:
        async with (
            await RawPeer.connect_websocket(server.port, receive_buffer=SMALL_BUFFER) as peer,
            undisturbed_traffic(server),
        ):
            client = await connect_and_subscribe(peer, "bare:quiet")
            await publish_megabytes(server, 8, "bare:quiet")
            await wait_session_end(server, client, 3009)
            assert await count_limit_hits(server, "websocket.write_timeout") == 1
            await peer.wait_closed()

    run_scenario(scenario())
