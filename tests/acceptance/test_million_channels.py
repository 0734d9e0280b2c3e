"""Channels that come and go leave no memory behind: a quarter of a million, or a million by `make test-long`."""

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
KEPT = PublishOptions(history=HistoryOptions(size=10, ttl_s=4.0, meta_ttl_s=8.0))


async def visit(engine: MemoryEngine, name: str) -> None:
    await engine.presence.add(name, ANN, 2.0)
    await engine.broker.publish(name, Raw(b'{"text":"hello"}'), KEPT)


def sweep_all(engine: MemoryEngine) -> None:
    while engine.sweep():
        pass


async def live_and_die(engine: MemoryEngine, clock: ManualClock, batches: int) -> int:
    """New channels every second, each used once. Returns the most streams there were at a time, and ends with none."""
    most = 0
    for batch in range(batches):
        for number in range(BATCH):
            await visit(engine, f"channel-{batch}-{number}")
        clock.advance(1.0)
        sweep_all(engine)
        most = max(most, engine.broker.statistics().streams)
    clock.advance(60.0)
    sweep_all(engine)
    return most


@pytest.mark.timeout(240)
def test_channels_come_and_go() -> None:
    """What is held follows what is alive, ten batches at a time, and when all have gone no object is left."""
    clock = ManualClock()
    engine = memory_engine(clock)
    asyncio.run(live_and_die(engine, clock, 1))
    gc.collect()
    before = len(gc.get_objects())
    most = asyncio.run(live_and_die(engine, clock, BATCHES))
    gc.collect()
    assert len(gc.get_objects()) < before + 1000
    assert most <= 10 * BATCH
    assert engine.broker.statistics().streams == engine.broker.statistics().publications == 0
    assert engine.presence.statistics().entries == engine.presence.statistics().channels == 0
