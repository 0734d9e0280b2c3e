"""Positions of channels in which nothing was ever published: clients can name endlessly many of them."""

from __future__ import annotations

import asyncio

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.engines.memory import MemoryEngine, memory_engine
from beaconfire.engines.memory.streams import UNUSED_TTL_S
from beaconfire.engines.port import BrokerEvents, HistoryOptions, PublishOptions

HISTORY = HistoryOptions(size=10, ttl_s=60, meta_ttl_s=30 * 86400)


class Deaf(BrokerEvents):
    """Hears announcements and does nothing."""

    def on_publication(self, *_: object) -> None: ...

    def on_join(self, *_: object) -> None: ...

    def on_leave(self, *_: object) -> None: ...

    def on_link_lost(self, *_: object) -> None: ...


async def epoch(engine: MemoryEngine, channel: str) -> str:
    return (await engine.broker.history(channel, HISTORY, 0)).position.epoch


def sweep(engine: MemoryEngine) -> None:
    while engine.sweep():
        pass


def test_an_unused_position_is_soon_forgotten() -> None:
    """Long before the month that positions live otherwise."""

    async def scenario() -> None:
        clock = ManualClock()
        engine = memory_engine(clock)
        for number in range(1000):
            await epoch(engine, f"guess{number}")
        assert engine.broker.statistics().streams == 1000
        clock.advance(UNUSED_TTL_S + 2)
        sweep(engine)
        assert engine.broker.statistics().streams == 0

    asyncio.run(scenario())


def test_a_position_that_somebody_waits_at_stays() -> None:
    """Or the first publication would look like one of another stream."""

    async def scenario() -> None:
        clock = ManualClock()
        engine = memory_engine(clock)
        await engine.broker.start(Deaf())
        await engine.broker.attach("quiet")
        before = await epoch(engine, "quiet")
        for _ in range(10):
            clock.advance(UNUSED_TTL_S * 0.9)
            sweep(engine)
        outcome = await engine.broker.publish("quiet", Raw(b"1"), PublishOptions(history=HISTORY))
        assert outcome.position == (1, before)

    asyncio.run(scenario())


def test_a_used_position_lives_as_long_as_configured() -> None:
    """From the first publication on."""

    async def scenario() -> None:
        clock = ManualClock()
        engine = memory_engine(clock)
        outcome = await engine.broker.publish("news", Raw(b"1"), PublishOptions(history=HISTORY))
        clock.advance(20 * 86400)
        sweep(engine)
        assert await epoch(engine, "news") == outcome.position.epoch

    asyncio.run(scenario())
