"""A million channels that come and go leave no memory behind."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

import pytest
from msgspec import Raw

from beaconfire.clock import ManualClock
from beaconfire.engines.base import HistoryOptions, PublishOptions
from beaconfire.engines.memory import MemoryEngine, memory_engine
from beaconfire.messages import ClientInfo

BATCHES = 100
BATCH = 10_000
ANN = ClientInfo("ann", "c1")
KEPT = PublishOptions(history=HistoryOptions(size=10, ttl_s=4.0, meta_ttl_s=8.0))


async def visit(engine: MemoryEngine, name: str) -> None:
    await engine.presence.add(name, ANN, 2.0)
    await engine.broker.publish(name, Raw(b'{"text":"hello"}'), KEPT)


async def live_and_die(engine: MemoryEngine, clock: ManualClock, batches: int) -> int:
    """New channels every second, each used once. Returns the most streams there were at a time, and ends with none."""
    most = 0
    for batch in range(batches):
        for number in range(BATCH):
            await visit(engine, f"channel-{batch}-{number}")
        clock.advance(1.0)
        while engine.sweep():
            await asyncio.sleep(0)
        most = max(most, engine.broker.statistics().streams)
    clock.advance(60.0)
    while engine.sweep():
        await asyncio.sleep(0)
    return most


@pytest.mark.timeout(240)
def test_a_million_channels_come_and_go() -> None:
    """Memory follows what is alive, which is a hundredth part at any time, and when all have gone so has theirs."""
    clock = ManualClock()
    engine = memory_engine(clock)
    asyncio.run(live_and_die(engine, clock, 1))
    tracemalloc.start(1)
    try:
        asyncio.run(live_and_die(engine, clock, 20))
        used_early = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    most = asyncio.run(live_and_die(engine, clock, BATCHES - 20 - 12))
    tracemalloc.start(1)
    try:
        asyncio.run(live_and_die(engine, clock, 12))
        gc.collect()
        left, used_late = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most <= 10 * BATCH
    assert used_late < 1.2 * used_early
    assert left < 300_000
    assert engine.broker.statistics().streams == engine.broker.statistics().publications == 0
    assert engine.presence.statistics().entries == engine.presence.statistics().channels == 0
