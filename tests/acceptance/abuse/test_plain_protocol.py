"""Abuse over the plain protocol and its lobby. An invalid message never closes the connection."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.acceptance.abuse.large_publications import PUBLICATIONS_PER_MB, publish_megabytes
from tests.acceptance.background_traffic import CHANNEL, undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario
from tests.acceptance.raw_peer import (
    BINARY,
    PING,
    PONG,
    SMALL_BUFFER,
    TEXT,
    RawPeer,
    WebSocketFrame,
    encode_frame,
    open_peers,
)
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_limit_hits, read_metrics

LOBBY = "lobby"

UNKNOWN_MESSAGES: dict[str, tuple[int, bytes]] = {
    "text": (TEXT, b"hello"),
    "empty": (TEXT, b""),
    "NUL": (TEXT, b"\0\0\0"),
    "binary": (BINARY, bytes(range(256))),
    "half an object": (TEXT, b'{"type":"message"'),
    "array": (TEXT, b"[1,2,3]"),
    "no type": (TEXT, b'{"a":1}'),
    "type a number": (TEXT, b'{"type":1}'),
    "unknown type": (TEXT, b'{"type":"fly"}'),
    "deep": (TEXT, b"[" * 30_000 + b"]" * 30_000),
    "64 KiB": (TEXT, b"x" * 65_536),
}


@pytest.mark.parametrize("kind", UNKNOWN_MESSAGES)
def test_unknown_message_is_published_in_the_lobby(permissive_server: ServerProcess, kind: str) -> None:
    """All clients in the lobby receive the frame unchanged, also the sender. Both connections stay open."""
    opcode, payload = UNKNOWN_MESSAGES[kind]

    async def scenario() -> None:
        async with (
            undisturbed_traffic(permissive_server),
            open_peers(2, lambda: RawPeer.connect_websocket(permissive_server.port, "/ws")) as (sender, receiver),
        ):
            await sender.send(encode_frame(opcode, payload))
            assert await sender.read_frame() == await receiver.read_frame() == WebSocketFrame(opcode, payload)
            await sender.send(encode_frame(PING, b"alive"))
            assert await sender.read_frame() == WebSocketFrame(PONG, b"alive")

    run_scenario(scenario())


def test_unknown_message_without_a_lobby_gets_error_107(start_server: StartServer) -> None:
    """The connection stays open."""
    server = start_server({"plain.lobby": "false"})

    async def scenario() -> None:
        async with undisturbed_traffic(server), await RawPeer.connect_websocket(server.port, "/ws") as peer:
            for kind in ("text", "binary", "array", "deep"):
                await peer.send(encode_frame(*UNKNOWN_MESSAGES[kind]))
                reply = (await peer.read_messages())[0]
                assert (reply["type"], reply["code"]) == ("error", 107)

    run_scenario(scenario())


MALFORMED: dict[str, tuple[dict[str, Any], int]] = {
    "no room": ({"type": "join"}, 107),
    "room a number": ({"type": "join", "room": 5}, 107),
    "no data": ({"type": "message", "room": CHANNEL}, 107),
    "unknown namespace": ({"type": "join", "room": "nowhere:x"}, 102),
    "message type of the server": ({"type": "ack", "id": 1}, 104),
    "late handshake": ({"type": "handshake", "id": 1}, 103),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_invalid_message_gets_an_error(permissive_server: ServerProcess, kind: str) -> None:
    """Only the sender gets the error."""
    message, code = MALFORMED[kind]

    async def scenario() -> None:
        async with (
            undisturbed_traffic(permissive_server),
            await RawPeer.connect_websocket(permissive_server.port, "/ws") as peer,
        ):
            await peer.send_json({"type": "handshake", "user": "ann"})
            assert (await peer.read_messages())[0]["type"] == "welcome"
            await peer.send_json(message)
            reply = (await peer.read_messages())[0]
            assert (reply["type"], reply["code"]) == ("error", code)

    run_scenario(scenario())


def test_peer_in_the_lobby_that_reads_nothing_is_disconnected_with_3008(permissive_server: ServerProcess) -> None:
    """The rule also holds for a peer that sent no message. The other peer in the lobby receives all publications."""

    async def scenario() -> None:
        hits_before = await count_limit_hits(permissive_server, "client.queue_max_size")
        async with (
            undisturbed_traffic(permissive_server),
            await RawPeer.connect_websocket(permissive_server.port, "/ws", receive_buffer=SMALL_BUFFER) as stalled,
            await RawPeer.connect_websocket(permissive_server.port, "/ws") as reader,
        ):
            for batch in range(12):
                await publish_megabytes(permissive_server, 1, LOBBY)
                received = [
                    message["data"]["text"][:1]
                    for _ in range(PUBLICATIONS_PER_MB)
                    for message in await reader.read_messages()
                ]
                assert received == ["x"] * PUBLICATIONS_PER_MB, batch
            assert (await stalled.read_close_frame()).close_code == 3008
        assert await count_limit_hits(permissive_server, "client.queue_max_size") == hits_before + 1
        assert (await read_metrics(permissive_server))["beaconfire_queue_bytes"] == 0

    run_scenario(scenario())


def test_flood_in_the_lobby_is_closed_with_3013(start_server: StartServer) -> None:
    """The server closes the flooding connection at `client.message_rate_limit`, and other clients are undisturbed."""
    server = start_server({"client.message_rate_limit": "1000"})  # low enough for a server on a busy machine
    flood = encode_frame(TEXT, json.dumps({"spam": True}).encode()) * 20_000

    async def scenario() -> None:
        async with (
            undisturbed_traffic(server),
            await RawPeer.connect_websocket(server.port, "/ws") as peer,
        ):
            try:
                await peer.send(flood)
            except OSError:
                pass  # the server reset the connection
            assert (await peer.read_close_frame()).close_code == 3013

    run_scenario(scenario())
