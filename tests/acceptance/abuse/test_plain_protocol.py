"""The plain protocol and its lobby under the same abuse: nothing there ends a connection that only talks nonsense."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.acceptance.abuse.test_slow_readers import BATCH, fill
from tests.acceptance.background_traffic import CHANNEL, undisturbed_traffic
from tests.acceptance.conftest import StartServer
from tests.acceptance.deadlines import run_scenario
from tests.acceptance.raw_peer import BINARY, PING, PONG, TEXT, RawPeer, WebSocketFrame, encode_frame, open_peers
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import count_limit_hits, read_metrics

LOBBY = "lobby"

NONSENSE: dict[str, tuple[int, bytes]] = {
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


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_for_the_lobby(permissive_server: ServerProcess, kind: str) -> None:
    """Everyone in the lobby gets it as it is, the sender too; rooms do not notice, and both connections live."""
    opcode, payload = NONSENSE[kind]

    async def scenario() -> None:
        async with (
            undisturbed_traffic(permissive_server),
            open_peers(2, lambda: RawPeer.connect_websocket(permissive_server.port, "/ws")) as (sender, listener),
        ):
            await sender.send(encode_frame(opcode, payload))
            assert await sender.read_frame() == await listener.read_frame() == WebSocketFrame(opcode, payload)
            await sender.send(encode_frame(PING, b"alive"))
            assert await sender.read_frame() == WebSocketFrame(PONG, b"alive")

    run_scenario(scenario())


def test_nonsense_without_a_lobby_is_an_error(start_server: StartServer) -> None:
    """107, and the connection lives."""
    server = start_server({"plain.lobby": "false"})

    async def scenario() -> None:
        async with undisturbed_traffic(server), await RawPeer.connect_websocket(server.port, "/ws") as peer:
            for kind in ("text", "binary", "array", "deep"):
                await peer.send(encode_frame(*NONSENSE[kind]))
                answer = (await peer.read_messages())[0]
                assert (answer["type"], answer["code"]) == ("error", 107)

    run_scenario(scenario())


MALFORMED: dict[str, tuple[dict[str, Any], int]] = {
    "no room": ({"type": "join"}, 107),
    "room a number": ({"type": "join", "room": 5}, 107),
    "no data": ({"type": "message", "room": CHANNEL}, 107),
    "unknown namespace": ({"type": "join", "room": "nowhere:x"}, 102),
    "speaking as the server": ({"type": "ack", "id": 1}, 104),
    "late handshake": ({"type": "handshake", "id": 1}, 103),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_messages_are_errors(permissive_server: ServerProcess, kind: str) -> None:
    """A typed error for the sender and for nobody else."""
    message, code = MALFORMED[kind]

    async def scenario() -> None:
        async with (
            undisturbed_traffic(permissive_server),
            await RawPeer.connect_websocket(permissive_server.port, "/ws") as peer,
        ):
            await peer.send_json({"type": "handshake", "user": "ann"})
            assert (await peer.read_messages())[0]["type"] == "welcome"
            await peer.send_json(message)
            answer = (await peer.read_messages())[0]
            assert (answer["type"], answer["code"]) == ("error", code)

    run_scenario(scenario())


def test_a_reader_of_the_lobby_that_never_reads_is_cut(permissive_server: ServerProcess) -> None:
    """3008 here as well, though it never even said a word; the others in the lobby get all of it."""

    async def scenario() -> None:
        hits_before = await count_limit_hits(permissive_server, "client.queue_max_size")
        async with (
            undisturbed_traffic(permissive_server),
            await RawPeer.connect_websocket(permissive_server.port, "/ws", receive_buffer=4096) as stalled,
            await RawPeer.connect_websocket(permissive_server.port, "/ws") as reader,
        ):
            for batch in range(12):
                await fill(permissive_server, 1, LOBBY)
                got = [message["data"]["text"][:1] for _ in range(BATCH) for message in await reader.read_messages()]
                assert got == ["x"] * BATCH, batch
            assert (await stalled.read_close_frame()).close_code == 3008
        assert await count_limit_hits(permissive_server, "client.queue_max_size") == hits_before + 1
        assert (await read_metrics(permissive_server))["beaconfire_queue_bytes"] == 0

    run_scenario(scenario())


def test_a_flood_in_the_lobby_ends_with_3013(permissive_server: ServerProcess) -> None:
    """Beyond message_rate_limit the flooder goes, and the room next door never knows."""
    flood = encode_frame(TEXT, json.dumps({"spam": True}).encode()) * 20_000

    async def scenario() -> None:
        async with (
            undisturbed_traffic(permissive_server),
            await RawPeer.connect_websocket(permissive_server.port, "/ws") as peer,
        ):
            try:
                await peer.send(flood)
            except OSError:
                pass  # cut while it sent
            assert (await peer.read_close_frame()).close_code == 3013

    run_scenario(scenario())
