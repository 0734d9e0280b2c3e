"""A hundred listeners in one channel, a backend that publishes at a fixed rate, and a server of their own."""

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
from bench.transports.listeners import Listener

CHANNEL = f"{HISTORY}news"
LISTENERS = 100
SECONDS = 8.0
DEADLINE_S = 30.0


class Figures(msgspec.Struct, frozen=True):
    """One way to listen at one rate: per message that a listener got. Without messages: per listener and second."""

    rate: float
    p50_s: float
    p99_s: float
    bytes: float
    cpu_us: float


async def measure(running: Running, make: Callable[[int, str, str], Listener], rate: float) -> Figures:
    """`rate` is messages per second; 0 measures silence. Raises RuntimeError if a message gets lost."""
    listeners = [make(running.port, f"user{number}", CHANNEL) for number in range(LISTENERS)]
    async with AsyncExitStack() as stack:
        await _seat(listeners, stack)
        await asyncio.sleep(1.5)  # what connecting costs is not measured: whoever polls has asked again
        for listener in listeners:
            listener.bytes = 0
            listener.delays_s.clear()
        before_s, started_s = running.cpu_s(), time.monotonic()
        sent = await _publish(running.port, rate)
        await _arrived(listeners, sent)
        cpu_s, seconds = running.cpu_s() - before_s, time.monotonic() - started_s
    delays_s = sorted(delay_s for listener in listeners for delay_s in listener.delays_s)
    count = len(delays_s) or LISTENERS * seconds
    return Figures(
        rate=rate,
        p50_s=statistics.median(delays_s) if delays_s else 0.0,
        p99_s=delays_s[len(delays_s) * 99 // 100] if delays_s else 0.0,
        bytes=sum(listener.bytes for listener in listeners) / count,
        cpu_us=cpu_s / count * 1e6,
    )


async def _seat(listeners: Sequence[Listener], stack: AsyncExitStack) -> None:
    """Returns when all of them can hear."""
    async with asyncio.timeout(DEADLINE_S):
        for listener in listeners:
            ready = asyncio.Event()
            task = asyncio.create_task(listener.listen(ready.set))
            stack.push_async_callback(_stop, task)
            await ready.wait()


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _publish(port: int, rate: float) -> int:
    """Publishes for a while, and returns how often."""
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


async def _arrived(listeners: Sequence[Listener], sent: int) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while any(len(listener.delays_s) < sent for listener in listeners):
        if time.monotonic() > end_s:
            raise RuntimeError("some messages have not arrived")
        await asyncio.sleep(0.01)
    if any(len(listener.delays_s) != sent for listener in listeners):
        raise RuntimeError("some messages have arrived twice")
