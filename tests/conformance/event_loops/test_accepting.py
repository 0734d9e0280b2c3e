"""The event loop of the server accepts connections one by one, so a reconnect storm does not make the loop late."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter

import uvloop

CLIENTS = 50


def test_each_turn_of_the_event_loop_accepts_one_connection() -> None:
    """The kernel keeps the others. A loop that accepted all that wait would do nothing else meanwhile."""

    async def scenario() -> Counter[int]:
        accepted: Counter[int] = Counter()
        turn = 0

        class Accepted(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                accepted[turn] += 1

        listener = await asyncio.get_running_loop().create_server(Accepted, "127.0.0.1", 0, backlog=CLIENTS)
        address = listener.sockets[0].getsockname()
        with contextlib.ExitStack() as clients:
            for _ in range(CLIENTS):
                clients.enter_context(socket.create_connection(address))  # the kernel answers
            while accepted.total() < CLIENTS:
                turn += 1
                await asyncio.sleep(0)
        listener.close()
        return accepted

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        accepted = runner.run(scenario())
    assert set(accepted.values()) == {1}
