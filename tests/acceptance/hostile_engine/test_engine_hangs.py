"""The engine hangs for some seconds and then works again, while clients do what they always do.

`make test-engine` runs more clients, and the engine hangs for 10 s.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeAlias

import uvloop
from msgspec import Raw

from beaconfire.engines.interceptor import intercept
from beaconfire.engines.port import PublishOptions
from beaconfire.testing import SharedEngine
from tests.acceptance.hostile_engine.frozen import Freezer
from tests.acceptance.hostile_engine.ledger import record
from tests.acceptance.hostile_engine.load import Load, add_clients
from tests.acceptance.hostile_engine.world import TIMEOUT_S, World

CLIENTS = int(os.environ.get("HOSTILE_CLIENTS", "200"))
HANG_S = float(os.environ.get("HOSTILE_HANG_SECONDS", "4"))
Recover: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Makes the engine work again."""

RED_S = 3.0
"""Readiness is red after this time, with an engine timeout of one second."""

GREEN_S = 2.0
SLACK_S = 1.0
"""For the resolution of timers and a busy machine."""


async def publish_elsewhere(engine: SharedEngine, world: World) -> None:
    """Another node publishes in all rooms, again and again."""
    number = 0
    while True:
        for channel in {channel for client in world.clients[:20] for channel in client.rooms}:
            number += 1
            options = PublishOptions(history=world.app.namespaces.resolve(channel).history)
            await engine.broker.publish(channel, Raw(b'"elsewhere-%d"' % number), options)
        await asyncio.sleep(0.2)


async def check_one_session(world: World) -> None:
    """While the engine hangs: a command fails within the timeout, and the next command of the session then succeeds,
    because it needs no engine."""
    client = world.clients[0]
    channel = next(iter(client.rooms))
    client.longest_wait_s = 0.0
    client.publish(channel)
    client.leave(channel, forgets=False)
    refused = world.counts["publish refused"]
    world.send(client)
    await world.wait_until(lambda: client.rooms[channel].phase != "leaving", 5, "the session goes on")
    assert world.counts["publish refused"] > refused
    assert client.longest_wait_s < TIMEOUT_S + SLACK_S


async def run(make_hang: Callable[[World, Freezer], Recover], is_link_lost: bool = False) -> World:
    """`make_hang` makes the engine hang, and returns what makes the engine work again."""
    freezer = Freezer()
    world = World(1, lambda engine, timers, rng: intercept(engine, freezer))
    app = world.app
    await app.start()
    load = Load(world, 2.0)
    add_clients(world, CLIENTS)
    await load.connect_all(per_second=200)
    world.meter.start()
    elsewhere = asyncio.create_task(publish_elsewhere(record(world.store.connect("other"), world.ledger), world))
    running = asyncio.create_task(load.run(HANG_S + 4))
    await asyncio.sleep(0.5)
    assert app.health.ready().ok
    session = asyncio.create_task(check_one_session(world))
    make_work = make_hang(world, freezer)
    began_s = time.monotonic()
    red_s = await world.wait_until(lambda: not app.health.ready().ok, RED_S, "readiness is red")
    assert world.metric("beaconfire_engine_up") == 0
    await session
    await asyncio.sleep(max(0.0, began_s + HANG_S - time.monotonic()))
    assert not app.health.ready().ok, "readiness stays red"
    await make_work()
    green_s = await world.wait_until(lambda: app.health.ready().ok, GREEN_S, "readiness is green")
    assert world.metric("beaconfire_engine_up") == 1
    assert world.metric("beaconfire_engine_failures_total") > 0
    await running
    elsewhere.cancel()
    await asyncio.wait([elsewhere])
    settled_s = await world.wait_until(world.is_settled, 30, "every client has everything")
    print(f"\nred after {red_s:.1f} s, green after {green_s:.1f} s, settled after {settled_s:.1f} s")
    print(f"{world.meter.stop()}\n{dict(sorted(world.counts.items()))}")
    check_nobody_was_disturbed(world)
    world.check_ledger()
    await world.check_presence(with_announcements=not is_link_lost)
    await world.stop()
    return world


def check_log(log: Path) -> None:
    states = [line for line in log.read_text().splitlines() if "engine_state" in line]
    assert len(states) == 2, f"the log says once that the engine is down, and once that it is up: {states}"


def check_nobody_was_disturbed(world: World) -> None:
    """No session was closed and no gap was told, although commands have failed."""
    assert not [name for name in world.counts if name.startswith("closed with")], world.counts
    assert world.counts["gaps told"] == 0
    assert world.counts["publish refused"]


def test_engine_that_stops_and_continues(log: Path) -> None:
    """Calls whose callers have given up take effect later. Commands fail with the temporary error in time, readiness is
    red and green again, no session ends, and every client gets everything without a gap."""

    def freeze(world: World, freezer: Freezer) -> Recover:
        freezer.is_frozen = True
        return freezer.thaw

    uvloop.run(run(freeze))
    check_log(log)


def test_link_that_is_silently_lost(log: Path) -> None:
    """As above. Another node goes on publishing: the node reads what it has missed, and delivers it."""

    def lose(world: World, freezer: Freezer) -> Recover:
        world.shared.link.lose_silently()

        async def restore() -> None:
            world.shared.link.restore()

        return restore

    world = uvloop.run(run(lose, is_link_lost=True))
    check_log(log)
    assert world.metric("beaconfire_channels_healed_total") > 0
