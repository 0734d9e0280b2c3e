"""Two servers on two event loops, in two threads of one process, do not disturb each other."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import uvloop

from beaconfire.config import load
from tests.acceptance.deadlines import DEADLINE_S
from tests.acceptance.raw_peer import PING, TEXT, encode_frame, encode_upgrade_request
from tests.conformance.event_loops.app_thread import AppThread, LoopFactory

CONFIG = load(None, {}, {"client.insecure": "true", "plain.lobby": "false", "api.enabled": "false"})
CLIENTS = 4
ROUNDS = 400


class BlockingClient:
    """A WebSocket of the plain protocol, on a blocking socket: no event loop of the test slows the servers down."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self._socket.sendall(encode_upgrade_request("/ws"))
        self._buffer = b""
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        self._buffer = self._buffer.partition(b"\r\n\r\n")[2]

    def send(self, text: bytes, opcode: int = TEXT) -> None:
        self._socket.sendall(encode_frame(opcode, text))

    def read(self) -> bytes:
        """The payload of the next frame."""
        self._fill(2)
        length, start = self._buffer[1], 2
        if length == 126:
            self._fill(4)
            length, start = int.from_bytes(self._buffer[2:4], "big"), 4
        self._fill(start + length)
        payload = self._buffer[start : start + length]
        self._buffer = self._buffer[start + length :]
        return payload

    def close(self) -> None:
        self._socket.close()

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            self._receive()

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        assert data, "the server has closed the connection"
        self._buffer += data


def talk(port: int, name: str, control_frames: bool, errors: list[str]) -> None:
    """Sends pings of the protocol one after the other, each with a text that the server repeats, and checks each pong.

    With `control_frames` also pings of WebSocket, after which the other reader reads the connection.
    """
    client = BlockingClient(port)
    try:
        for number in range(ROUNDS):
            text = f"{name} {number} " * (1 + number % 40)
            client.send(json.dumps({"type": "ping", "id": text}).encode())
            reply = json.loads(client.read())
            assert reply == {"type": "pong", "id": text}, f"{reply} instead of a pong to {text}"
            if control_frames and number % 8 == 7:
                control = text[:100].encode()
                client.send(control, PING)
                assert client.read() == control
    except (OSError, AssertionError, ValueError) as error:
        errors.append(f"{name}: {error!r}")
    finally:
        client.close()


def run_together(actions: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_messages_of_two_event_loops_are_never_mixed(loop_factory: LoopFactory) -> None:
    """Thousands of small messages, which all connections of an event loop read into one buffer."""
    errors: list[str] = []
    with AppThread(CONFIG, loop_factory) as one, AppThread(CONFIG, loop_factory) as other:
        run_together(
            [
                partial(talk, server.port, f"server{index}-client{client}", client == 0, errors)
                for index, server in enumerate((one, other))
                for client in range(CLIENTS)
            ]
        )
    assert errors == []
