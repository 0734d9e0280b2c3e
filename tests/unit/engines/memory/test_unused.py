"""Positions of channels without any publication. Clients can name an unlimited number of such channels."""

from __future__ import annotations

import asyncio

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.engines.memory import MemoryEngine, memory_engine
from beaconfire.engines.memory.streams import UNUSED_TTL_S
from beaconfire.engines.port import BrokerEvents, HistoryOptions, PublishOptions

HISTORY = HistoryOptions(size=10, ttl_s=60, meta_ttl_s=30 * 86400)


class IgnoringNode(BrokerEvents):
    """Ignores all announcements."""

    def on_publication(self, *_: object) -> None: ...

    def on_join(self, *_: object) -> None: ...

    def on_leave(self, *_: object) -> None: ...

    def on_link_up(self, channels: object) -> None: ...

    def on_link_down(self, *_: object) -> None: ...


async def epoch(engine: MemoryEngine, channel: str) -> str:
    return (await engine.broker.history(channel, HISTORY, 0)).position.epoch


def sweep(engine: MemoryEngine) -> None:
    while engine.sweep():
        pass


def test_an_unused_position_expires_after_five_minutes() -> None:
    """Much earlier than other positions, which are kept for a month."""

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


def test_the_unused_position_of_an_attached_channel_is_kept() -> None:
    """Otherwise the first publication would seem to belong to another stream."""

    async def scenario() -> None:
        clock = ManualClock()
        engine = memory_engine(clock)
        await engine.broker.start(IgnoringNode())
        await engine.broker.attach(["quiet"])
        before = await epoch(engine, "quiet")
        for _ in range(10):
            clock.advance(UNUSED_TTL_S * 0.9)
            sweep(engine)
        outcome = await engine.broker.publish("quiet", Raw(b"1"), PublishOptions(history=HISTORY))
        assert outcome.position == (1, before)

    asyncio.run(scenario())


def test_a_used_position_is_kept_as_long_as_configured() -> None:
    """From the first publication on."""

    async def scenario() -> None:
        clock = ManualClock()
        engine = memory_engine(clock)
        outcome = await engine.broker.publish("news", Raw(b"1"), PublishOptions(history=HISTORY))
        clock.advance(20 * 86400)
        sweep(engine)
        assert await epoch(engine, "news") == outcome.position.epoch

    asyncio.run(scenario())
