"""A hundred subscribers of one channel, a backend that publishes at a fixed rate, and a server only for them."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import msgspec

from bench.peers.base import Running
from bench.peers.centrifuge import HISTORY, api_request
from bench.transports.subscribers import Subscriber

CHANNEL = f"{HISTORY}news"
COUNT = 100
SECONDS = 8.0
DEADLINE_S = 30.0


class TransportResults(msgspec.Struct, frozen=True):
    """The results of one transport at one rate, per delivered message. Without messages: per subscriber and second."""

    rate: float
    p50_s: float
    p99_s: float
    bytes: float
    cpu_us: float


async def measure(running: Running, make: Callable[[int, str, str], Subscriber], rate: float) -> TransportResults:
    """`rate` is messages per second; 0 measures idle connections. Raises RuntimeError if a message is lost."""
    subscribers = [make(running.port, f"user{number}", CHANNEL) for number in range(COUNT)]
    async with AsyncExitStack() as stack:
        await _connect_all(subscribers, stack)
        await asyncio.sleep(
            1.5
        )  # the cost of connecting is not measured; polling clients have sent their second request by now
        for subscriber in subscribers:
            subscriber.bytes = 0
            subscriber.delays_s.clear()
        before_s, started_s = running.cpu_s(), time.monotonic()
        sent = await _publish(running.port, rate)
        await _wait_delivered(subscribers, sent)
        cpu_s, seconds = running.cpu_s() - before_s, time.monotonic() - started_s
    delays_s = sorted(delay_s for subscriber in subscribers for delay_s in subscriber.delays_s)
    count = len(delays_s) or COUNT * seconds
    return TransportResults(
        rate=rate,
        p50_s=statistics.median(delays_s) if delays_s else 0.0,
        p99_s=delays_s[len(delays_s) * 99 // 100] if delays_s else 0.0,
        bytes=sum(subscriber.bytes for subscriber in subscribers) / count,
        cpu_us=cpu_s / count * 1e6,
    )


async def _connect_all(subscribers: Sequence[Subscriber], stack: AsyncExitStack) -> None:
    """Returns when all are subscribed."""
    async with asyncio.timeout(DEADLINE_S):
        for subscriber in subscribers:
            ready = asyncio.Event()
            task = asyncio.create_task(subscriber.run(ready.set))
            stack.push_async_callback(_stop, task)
            await ready.wait()


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _publish(port: int, rate: float) -> int:
    """Publishes for SECONDS and returns the number of messages."""
    if not rate:
        await asyncio.sleep(SECONDS)
        return 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started_s, count = time.monotonic(), int(rate * SECONDS)
    for number in range(count):
        await asyncio.sleep(max(0.0, started_s + number / rate - time.monotonic()))
        data = {"at_ns": time.monotonic_ns(), "text": "x" * 64}
        writer.write(
            api_request(port, "publish", json.dumps({"channel": CHANNEL, "data": data}, separators=(",", ":")).encode())
        )
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    writer.close()
    return count


async def _wait_delivered(subscribers: Sequence[Subscriber], sent: int) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while any(len(subscriber.delays_s) < sent for subscriber in subscribers):
        if time.monotonic() > end_s:
            raise RuntimeError("some messages were not delivered")
        await asyncio.sleep(0.01)
    if any(len(subscriber.delays_s) != sent for subscriber in subscribers):
        raise RuntimeError("some messages were delivered twice")
