"""The kernel's send queues of connections whose peers do not read."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator

import pytest

from beaconfire.observe import send_queues
from beaconfire.observe.send_queues import send_queue_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        yield near, far


def test_unread_bytes_of_connections_are_counted(pair: tuple[socket.socket, socket.socket]) -> None:
    """Bytes count until the peer has read them. Files, pipes, listening sockets and standard error do not count."""
    near, far = pair
    with socket.socket(socket.AF_UNIX) as listener, open(os.devnull, "wb"):
        listener.bind("")
        listener.listen()
        before = asyncio.run(send_queue_bytes())
        near.send(b"x" * 10_000)
        assert asyncio.run(send_queue_bytes()) - before >= 10_000
        far.recv(10_000)
        assert asyncio.run(send_queue_bytes()) == before


def test_other_tasks_run_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop runs other work after each slice, however many descriptors there are."""
    monkeypatch.setattr(send_queues, "DESCRIPTORS_PER_TURN", 1)
    descriptors = len(os.listdir("/proc/self/fd"))

    async def scenario() -> int:
        measuring = asyncio.create_task(send_queue_bytes())
        turns = 0
        while not measuring.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(scenario()) >= descriptors
