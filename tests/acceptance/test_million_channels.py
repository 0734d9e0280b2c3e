"""Expired channels leave no memory behind. The test uses 250,000 channels, or a million with `make test-long`."""

from __future__ import annotations

import asyncio
import gc
import os

import pytest
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.engines.memory import MemoryEngine, memory_engine
from beaconfire.engines.port import HistoryOptions, PublishOptions
from beaconfire.model.publication import ClientInfo

CHANNELS = int(os.environ.get("CHURN_CHANNELS", "250000"))
BATCH = 10_000
BATCHES = CHANNELS // BATCH
ANN = ClientInfo("ann", "c1")
WITH_HISTORY = PublishOptions(history=HistoryOptions(size=10, ttl_s=4.0, meta_ttl_s=8.0))


async def use_channel(engine: MemoryEngine, name: str) -> None:
    """Adds a presence entry and publishes."""
    await engine.presence.add(name, [ANN], 2.0)
    await engine.broker.publish(name, Raw(b'{"text":"hello"}'), WITH_HISTORY)


def sweep_all(engine: MemoryEngine) -> None:
    while engine.sweep():
        pass


async def churn(engine: MemoryEngine, clock: ManualClock, batches: int) -> int:
    """Uses a batch of new channels per second, until all have expired. Returns the highest number of streams."""
    peak = 0
    for batch in range(batches):
        for number in range(BATCH):
            await use_channel(engine, f"channel-{batch}-{number}")
        clock.advance(1.0)
        sweep_all(engine)
        peak = max(peak, engine.broker.statistics().streams)
    clock.advance(60.0)
    sweep_all(engine)
    return peak


@pytest.mark.timeout(240)
def test_expired_channels_leave_no_memory() -> None:
    """The engine holds at most ten batches at a time, and no object is left when all channels have expired."""
    clock = ManualClock()
    engine = memory_engine(clock)
    asyncio.run(churn(engine, clock, 1))
    gc.collect()
    before = len(gc.get_objects())
    peak = asyncio.run(churn(engine, clock, BATCHES))
    gc.collect()
    assert len(gc.get_objects()) < before + 1000
    assert peak <= 10 * BATCH
    assert engine.broker.statistics().streams == engine.broker.statistics().publications == 0
    assert engine.presence.statistics().entries == engine.presence.statistics().channels == 0
