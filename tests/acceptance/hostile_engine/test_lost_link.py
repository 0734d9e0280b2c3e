"""The link of the engine goes down and up under many channels with two subscribers each.

`make test-engine` takes 20,000 channels.
"""

from __future__ import annotations

import asyncio
import os

import uvloop
from msgspec import Raw

from beaconfire.engines.port import Engine, PublishOptions
from beaconfire.testing import RandomCalls, control_calls
from tests.acceptance.hostile_engine.ledger import record
from tests.acceptance.hostile_engine.world import World

CHANNELS = int(os.environ.get("HOSTILE_CHANNELS", "3000"))
ROOMS_PER_CLIENT = 100
DOWN_S = 1.0
MISSED_SHARE = 100
"""In one of so many channels something is published while the link is down."""


async def run() -> None:
    world = World(1, lambda engine, timers, rng: control_calls(engine, RandomCalls(timers, rng.random, 0.05)))
    await world.app.start()
    other = record(world.store.connect("other"), world.ledger)
    channels = [f"quiet:{number}" for number in range(CHANNELS)]
    for rooms in (channels, channels[1::2] + channels[::2]):
        for start in range(0, CHANNELS, ROOMS_PER_CLIENT):
            world.open(world.add_client(rooms[start : start + ROOMS_PER_CLIENT]))
            await asyncio.sleep(0.02)
    await world.wait_until(world.is_settled, 200, "every client is subscribed")
    for channel in channels[::3]:
        await publish(world, other, channel)
    await world.wait_until(world.is_settled, 30, "every client has everything")

    subscribed, received = world.counts["subscribed"], world.counts["received"]
    world.meter.start()
    world.shared.link.lose()
    missed = channels[::MISSED_SHARE]
    for channel in missed:
        await publish(world, other, channel)
    await world.wait_until(lambda: not world.app.health.ready().ok, 3, "readiness is red")
    await asyncio.sleep(DOWN_S)
    world.shared.link.restore()
    node = world.app.node
    healed_s = await world.wait_until(
        lambda: len(node.work.attachments) == CHANNELS and world.is_settled(), 60, "all channels are healed"
    )
    print(f"\n{CHANNELS} channels healed after {healed_s:.1f} s; {world.meter.stop()}")
    assert world.app.health.ready().ok
    assert world.counts["subscribed"] == subscribed, "nobody had to subscribe again"
    assert world.counts["received"] == received + 2 * len(missed)
    assert world.metric("beaconfire_channels_healed_total") == len(missed)
    assert not [name for name in world.counts if name == "gaps told" or name.startswith("closed with")]
    for channel in channels[::7]:
        await publish(world, other, channel)
    await world.wait_until(world.is_settled, 30, "every client has everything that came later")
    await world.stop()


async def publish(world: World, engine: Engine, channel: str) -> None:
    options = PublishOptions(history=world.app.namespaces.resolve(channel).history)
    await engine.broker.publish(channel, Raw(b'"%s-%d"' % (channel.encode(), world.ledger.top(channel))), options)


def test_channels_are_healed_and_only_those_who_missed_something_notice() -> None:
    """Each missed publication arrives once. Nobody is told of a gap, and nobody subscribes again."""
    uvloop.run(run())
