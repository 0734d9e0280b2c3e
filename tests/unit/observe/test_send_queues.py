"""What the kernel holds for peers that do not read, counted over all descriptors of the process."""

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


def test_what_a_peer_has_not_read_counts(pair: tuple[socket.socket, socket.socket]) -> None:
    """Until it has read it. Files, pipes and listening sockets do not count, and standard error neither."""
    near, far = pair
    with socket.socket(socket.AF_UNIX) as listener, open(os.devnull, "wb"):
        listener.bind("")
        listener.listen()
        before = asyncio.run(send_queue_bytes())
        near.send(b"x" * 10_000)
        assert asyncio.run(send_queue_bytes()) - before >= 10_000
        far.recv(10_000)
        assert asyncio.run(send_queue_bytes()) == before


def test_others_get_their_turn_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """After every slice, however many descriptors there are."""
    monkeypatch.setattr(send_queues, "SLICE", 1)
    descriptors = len(os.listdir("/proc/self/fd"))

    async def scenario() -> int:
        measuring = asyncio.create_task(send_queue_bytes())
        turns = 0
        while not measuring.done():
            await asyncio.sleep(0)
            turns += 1
        return turns

    assert asyncio.run(scenario()) >= descriptors
