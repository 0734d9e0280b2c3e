"""Invalid bytes and invalid messages of the native protocol, in both encodings."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed

from beaconfire.protocols.centrifuge.schema_pb2 import Command, PublishRequest, Reply
from tests.acceptance.background_traffic import undisturbed_traffic
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.raw_peer import (
    BINARY,
    CLOSE,
    NATIVE_PATH,
    PING,
    PONG,
    TEXT,
    RawPeer,
    WebSocketFrame,
    encode_frame,
)
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import megabytes, read_metrics

PROTOBUF = f"{NATIVE_PATH}?format=protobuf"
CONNECT = b'{"id":1,"connect":{}}'

INVALID_JSON: dict[str, tuple[int, bytes, int]] = {
    "no JSON": (TEXT, b"hello", 3501),
    "random bytes": (BINARY, random.Random(1).randbytes(500), 3501),
    "empty": (TEXT, b"", 3501),
    "white space": (TEXT, b" \n\n ", 3501),
    "half an object": (TEXT, b'{"id":1,"conn', 3501),
    "array": (TEXT, b"[]", 3501),
    "null": (TEXT, b"null", 3501),
    "number": (TEXT, b"1", 3501),
    "text": (TEXT, b'"connect"', 3501),
    "NUL": (TEXT, b"\0" * 100, 3501),
    "NUL after a command": (TEXT, CONNECT + b"\0", 3501),
    "unknown command": (TEXT, b'{"id":1,"fly":{}}', 3501),
    "command of the wrong type": (TEXT, b'{"id":1,"connect":[]}', 3501),
    "field of the wrong type": (TEXT, b'{"id":1,"connect":{"token":5}}', 3501),
    "another command first": (TEXT, b'{"id":1,"subscribe":{"channel":"room"}}', 3501),
    "ping as a command": (TEXT, b'{"id":1,"ping":{}}', 3501),
    "no id": (TEXT, b'{"connect":{}}', 3501),
    "id 0": (TEXT, b'{"id":0,"connect":{}}', 3501),
    "negative id": (TEXT, b'{"id":-1,"connect":{}}', 3501),
    "id 2**32": (TEXT, b'{"id":4294967296,"connect":{}}', 3501),
    "id 2**64": (TEXT, b'{"id":18446744073709551616,"connect":{}}', 3501),
    "id of 10,000 digits": (TEXT, b'{"id":' + b"9" * 10_000 + b',"connect":{}}', 3501),
    "id 1e400": (TEXT, b'{"id":1e400,"connect":{}}', 3501),
    "id as text": (TEXT, b'{"id":"1","connect":{}}', 3501),
    "deep array": (TEXT, b'{"id":1,"connect":{"data":' + b"[" * 30_000 + b"]" * 30_000 + b"}}", 3501),
    "deep object": (TEXT, b'{"id":1,"connect":{"data":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}}", 3501),
    "deep and unfinished": (TEXT, b"[" * 60_000, 3501),
    "deep and unknown": (TEXT, b'{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}", 3501),
    "100,000 levels": (TEXT, b"[" * 100_000, 1009),
    "invalid UTF-8": (TEXT, b'{"id":1,"connect":{"name":"\xff"}}', 1007),
    "invalid UTF-8 in binary": (BINARY, b'{"id":1,"connect":{"name":"\xff"}}', 3501),
    "UTF-16": (BINARY, CONNECT.decode().encode("utf-16"), 3501),
}

INVALID_PROTOBUF: dict[str, tuple[int, bytes, int]] = {
    "text": (TEXT, b"hello", 3501),
    "JSON": (TEXT, CONNECT, 3501),
    "random bytes": (BINARY, random.Random(2).randbytes(500), 3501),
    "empty": (BINARY, b"", 3501),
    "length without a message": (BINARY, b"\x05", 3501),
    "length of 2**63 - 1": (BINARY, b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 3501),
    "endless varint": (BINARY, b"\xff" * 1000, 3501),
    "60,000 empty messages": (BINARY, b"\x00" * 60_000, 3013),
    "unknown field": (BINARY, b"\x04\x08\x01\xf8\x07", 3501),
    "deep groups": (BINARY, b"\x90\x4e" + b"\x0b" * 9_998 + b"\x0c" * 9_998, 3501),
    "id without a command": (BINARY, b"\x02\x08\x01", 3501),
}


@pytest.mark.parametrize("kind", INVALID_JSON)
def test_invalid_json_command_closes_the_connection(permissive_server: ServerProcess, kind: str) -> None:
    """The close code is 3501, except for invalid UTF-8 in text (1007) and for messages beyond the size limit (1009)."""
    opcode, payload, code = INVALID_JSON[kind]
    expect_end(permissive_server, NATIVE_PATH, [encode_frame(opcode, payload)], code)


@pytest.mark.parametrize("kind", INVALID_PROTOBUF)
def test_invalid_protobuf_command_closes_the_connection(permissive_server: ServerProcess, kind: str) -> None:
    """The close code is 3501, except for a flood of empty messages (3013)."""
    opcode, payload, code = INVALID_PROTOBUF[kind]
    expect_end(permissive_server, PROTOBUF, [encode_frame(opcode, payload)], code)


def test_second_connect_closes_the_connection_with_3501(permissive_server: ServerProcess) -> None:
    """A session has one client, so a second connect command is invalid."""
    expect_end(permissive_server, NATIVE_PATH, [encode_frame(TEXT, CONNECT), encode_frame(TEXT, CONNECT)], 3501)


def test_unmasked_frame_closes_the_connection_with_1002(permissive_server: ServerProcess) -> None:
    """A client must mask its frames (RFC 6455 section 5.1), which protects proxies (section 10.3)."""
    expect_end(permissive_server, NATIVE_PATH, [encode_frame(TEXT, CONNECT, masked=False)], 1002)


def expect_end(server: ServerProcess, path: str, frames: list[bytes], code: int) -> None:
    async def scenario() -> None:
        async with undisturbed_traffic(server), await RawPeer.connect_websocket(server.port, path) as peer:
            await peer.send(*frames)
            assert (await peer.read_close_frame()).close_code == code

    run_scenario(scenario())


def test_nested_data_is_delivered_unchanged(permissive_server: ServerProcess) -> None:
    """500 levels are within the limit."""
    data = nested(500)

    async def scenario() -> None:
        async with (
            undisturbed_traffic(permissive_server) as subscriber,
            JSONClient.connect(permissive_server.port) as client,
        ):
            await client.publish("room", data)
            await wait_until(lambda: data in subscriber.received_data("room"), "the subscriber has the data")

    run_scenario(scenario())


@pytest.mark.parametrize("levels", [600, 30_000])
def test_data_beyond_512_levels_closes_the_publisher_with_3501(permissive_server: ServerProcess, levels: int) -> None:
    """The server delivers the data to no subscriber, because parsers of subscribers could fail on it."""

    async def scenario() -> None:
        async with (
            undisturbed_traffic(permissive_server) as subscriber,
            JSONClient.connect(permissive_server.port) as client,
        ):
            data = b"[" * levels + b"]" * levels
            await client.peer.send(encode_frame(TEXT, b'{"id":9,"publish":{"channel":"room","data":' + data + b"}}"))
            assert (await client.closed).code == 3501
        assert all(isinstance(each, dict) for each in subscriber.received_data("room"))

    run_scenario(scenario())


def nested(levels: int) -> Any:
    data: Any = "core"
    for _ in range(levels):
        data = [data]
    return data


@pytest.mark.parametrize("data", [b"\xff\xfe\xfd", b"[" * 600 + b"]" * 600, b"{", b"[1] [2]", b'"\xff"'])
def test_publication_data_that_is_not_json_is_refused_in_a_json_namespace(
    permissive_server: ServerProcess, data: bytes
) -> None:
    """A Protobuf client gets error 107 where `publication_data_format` is `json`, and subscribers stay connected."""

    async def scenario() -> None:
        async with (
            undisturbed_traffic(permissive_server, "json:room"),
            await RawPeer.connect_websocket(permissive_server.port, PROTOBUF) as peer,
        ):
            command = io.BytesIO()
            publish = PublishRequest(channel="json:room", data=data)
            serialize_length_prefixed(Command(id=2, publish=publish), command)
            await peer.send(CONNECTED[PROTOBUF], encode_frame(BINARY, command.getvalue()))
            reply = await read_protobuf_reply(peer, 2)
            assert (reply.error.code, reply.error.message) == (107, "bad request")

    run_scenario(scenario())


def test_binary_data_disconnects_json_subscribers_of_a_binary_namespace(permissive_server: ServerProcess) -> None:
    """Without `publication_data_format`, a JSON client that cannot receive the data is disconnected with 3506."""

    async def scenario() -> None:
        async with (
            undisturbed_traffic(permissive_server),
            JSONClient.connect(permissive_server.port, channels=["bare:any"]) as json_client,
            await RawPeer.connect_websocket(permissive_server.port, PROTOBUF) as peer,
        ):
            command = io.BytesIO()
            publish = PublishRequest(channel="bare:any", data=b"\xff\x00")
            serialize_length_prefixed(Command(id=2, publish=publish), command)
            await peer.send(CONNECTED[PROTOBUF], encode_frame(BINARY, command.getvalue()))
            assert (await read_protobuf_reply(peer, 2)).error.code == 0
            assert (await json_client.closed).code == 3506

    run_scenario(scenario())


async def read_protobuf_reply(peer: RawPeer, command_id: int) -> Reply:
    """Reads the reply to the command with this id. Drops all messages before the reply."""
    while True:
        stream = io.BytesIO((await peer.read_frame()).payload)
        while (reply := parse_length_prefixed(Reply, stream)) is not None:
            if reply.id == command_id:
                return reply


CHANNEL_NAMES = {
    "empty": ("", 3501),
    "too long": ("x" * 256, 107),
    "not ASCII": ("комната", 107),
    "a surrogate": ("\ud800", 107),
    "control characters": ("\x00\r\n\x1b[31m", 0),
    "unknown namespace": ("nowhere:x", 102),
}


@pytest.mark.parametrize("kind", CHANNEL_NAMES)
def test_unusual_channel_name_gets_its_code(permissive_server: ServerProcess, kind: str) -> None:
    """An invalid name gets an error or closes the connection. Control characters do not break the log."""
    name, code = CHANNEL_NAMES[kind]

    async def scenario() -> None:
        async with undisturbed_traffic(permissive_server), JSONClient.connect(permissive_server.port) as client:
            assert await client.request_code(subscribe={"channel": name}) == code

    run_scenario(scenario())


def test_random_and_mutated_messages_close_the_connection_or_are_answered(permissive_server: ServerProcess) -> None:
    """400 connections send mutated commands in both encodings. Each is closed with a documented code or stays open."""
    rng = random.Random(20)
    allowed = {1002, 1003, 1007, 1009, 3501, 3508, 3013}

    async def send_mutated_messages(path: str) -> None:
        async with await RawPeer.connect_websocket(permissive_server.port, path) as peer:
            if rng.random() < 0.5:
                await peer.send(CONNECTED[path])
            opcode = rng.choice((TEXT, BINARY))
            try:
                for _ in range(rng.randrange(1, 10)):
                    await peer.send(encode_frame(opcode, mutate(rng, SAMPLES[path])))
                await peer.send(encode_frame(PING, b"alive?"))
            except OSError:
                pass  # the server closed the connection
            while (frame := await peer.read_frame()) != WebSocketFrame(PONG, b"alive?"):
                if frame.opcode == CLOSE:
                    assert frame.close_code in allowed
                    return

    async def scenario() -> None:
        before = permissive_server.resident_bytes()
        async with undisturbed_traffic(permissive_server):
            for _ in range(200):
                for path in (NATIVE_PATH, PROTOBUF):
                    await send_mutated_messages(path)
        assert permissive_server.resident_bytes() - before < megabytes(6)
        assert not [
            name for name in await read_metrics(permissive_server) if name.startswith("beaconfire_internal_errors")
        ]

    run_scenario(scenario())


SAMPLES = {
    NATIVE_PATH: [
        b'{"id":2,"subscribe":{"channel":"chat","recover":true,"epoch":"x","offset":12}}',
        b'{"id":3,"publish":{"channel":"chat","data":{"a":[1,2,{"b":null}]}}}',
        b'{"id":4,"history":{"channel":"chat","limit":10,"since":{"offset":1,"epoch":"y"},"reverse":true}}',
        b'{"id":5,"presence":{"channel":"chat"}}\n{"id":6,"presence_stats":{"channel":"chat"}}\n{}',
        b'{"id":7,"rpc":{"method":"m","data":"\\ud83d\\ude00"}}\n{"send":{"data":1.5e10}}',
    ],
    PROTOBUF: [
        b"\x0a\x08\x02\x2a\x06\x0a\x04chat",
        b"\x11\x08\x03\x3a\x0d\x0a\x04chat\x12\x05hello",
        b"\x0a\x08\x04\x4a\x06\x0a\x04chat\x0a\x08\x05\x52\x06\x0a\x04chat",
    ],
}
CONNECTED = {NATIVE_PATH: encode_frame(TEXT, CONNECT), PROTOBUF: encode_frame(BINARY, b"\x04\x08\x01\x22\x00")}


def mutate(rng: random.Random, samples: list[bytes]) -> bytes:
    """Inserts, deletes, repeats and replaces bytes of a random sample."""
    text = bytearray(rng.choice(samples))
    for _ in range(rng.randrange(1, 8)):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(4):
            case 0:
                text[at:at] = rng.randbytes(rng.randrange(1, 20))
            case 1:
                del text[at : at + rng.randrange(1, 10)]
            case 2:
                text[at:at] = text[: rng.randrange(len(text) + 1)]
            case _:
                text[at : at + 1] = bytes([rng.randrange(256)])
    return bytes(text)
