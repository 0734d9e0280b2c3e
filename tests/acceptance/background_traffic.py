"""Two well-behaved clients that exchange messages while a test abuses the server."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.acceptance.deadlines import wait_until
from tests.acceptance.json_client import JSONClient
from tests.acceptance.server_process import ServerProcess

CHANNEL = "room"
"""The channel of the background traffic, unless a test names another one."""

LATENCY_MAX_S = 2.0
"""The longest a message of the background traffic may take, in addition to the time that the server and the test wait
for a CPU. Without other load a message takes a millisecond.
"""

PUBLISH_INTERVAL_S = 0.01
MESSAGES_MIN = 4
"""How many messages are exchanged at least before the test's actions, and again after them."""


@asynccontextmanager
async def undisturbed_traffic(
    server: ServerProcess, channel: str = CHANNEL, latency_max_s: float = LATENCY_MAX_S
) -> AsyncIterator[JSONClient]:
    """One client publishes numbered messages to the channel, and the other one receives them, until the context ends.

    Yields the subscriber. Fails unless each message is delivered within `latency_max_s`, once and in order.
    """
    async with (
        JSONClient.connect(server.port, channels=[channel]) as subscriber,
        JSONClient.connect(server.port) as publisher,
    ):
        sent_at_s: dict[int, float] = {}
        stop = asyncio.Event()
        cpu_wait_s = -total_cpu_wait_s(server)

        async def publish() -> None:
            while not stop.is_set():
                number = len(sent_at_s)
                sent_at_s[number] = time.monotonic()
                await publisher.publish(channel, {"tick": number})
                await asyncio.sleep(PUBLISH_INTERVAL_S)

        publishing = asyncio.create_task(publish())
        try:
            await wait_until(lambda: len(sent_at_s) >= MESSAGES_MIN, "the background traffic has started")
            yield subscriber
            enough = len(sent_at_s) + MESSAGES_MIN
            await wait_until(lambda: len(sent_at_s) >= enough or publishing.done(), "the background traffic continues")
        finally:
            stop.set()
            await publishing
        await wait_until(
            lambda: len(received_numbers(subscriber, channel)) >= len(sent_at_s), "the subscriber has all messages"
        )
        received = received_numbers(subscriber, channel)
        assert [number for number, _ in received] == list(sent_at_s), "each message once and in order"
        assert not subscriber.closed.done()
        worst_s = max(at_s - sent_at_s[number] for number, at_s in received)
        cpu_wait_s += total_cpu_wait_s(server)
        assert worst_s < latency_max_s + cpu_wait_s, f"a message took {worst_s:.3f} s"
        offsets = [publication.offset for publication in subscriber.publications[channel]]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets))) or set(offsets) == {0}


def total_cpu_wait_s(server: ServerProcess) -> float:
    """How long the main threads of the server and of the test have been runnable without a CPU, since each started.

    The event loops run in these threads. The kernel's schedstat counts nanoseconds.
    """
    texts = [Path(f"/proc/{pid}/schedstat").read_text() for pid in (server.pid, os.getpid())]
    return sum(int(text.split()[1]) for text in texts) / 1e9


def received_numbers(subscriber: JSONClient, channel: str = CHANNEL) -> list[tuple[int, float]]:
    """The numbers of the received messages, in the order of arrival, with the times of their arrival (monotonic)."""
    publications = subscriber.publications.get(channel, [])
    return [
        (each.data["tick"], each.received_at_s)
        for each in publications
        if isinstance(each.data, dict) and "tick" in each.data
    ]
