"""Every call of the engine takes 50 ms and one of twenty fails, while clients subscribe, publish, leave and come back.

`make test-engine` runs 1,000 clients for a minute. With `-s` the test prints what has happened and how long the node
kept the event loop busy.
"""

from __future__ import annotations

import os

import uvloop

from beaconfire.testing import RandomCalls, control_calls
from tests.acceptance.hostile_engine.load import Load, add_clients
from tests.acceptance.hostile_engine.world import World

CLIENTS = int(os.environ.get("HOSTILE_CLIENTS", "200"))
SECONDS = float(os.environ.get("HOSTILE_SECONDS", "8"))
PAUSE_S = 2.0


async def run() -> None:
    world = World(
        1,
        lambda engine, timers, rng: control_calls(engine, RandomCalls(timers, rng.random, 0.05, failure_rate=0.05)),
    )
    await world.app.start()
    world.meter.start()
    load = Load(world, PAUSE_S)
    add_clients(world, CLIENTS)
    await load.connect_all(per_second=200)
    await load.run(SECONDS)
    settled_s = await world.wait_until(world.is_settled, 30, "every client has everything")
    print(f"\n{world.meter.stop()}\nsettled after {settled_s:.1f} s; {dict(sorted(world.counts.items()))}")
    world.check_ledger()
    await world.check_presence()
    assert world.counts["gaps told"] == 0
    assert world.counts["publish refused"]
    assert world.counts["subscribe refused"]
    assert world.metric("beaconfire_internal_errors_total") == 0
    await world.stop()


def test_nothing_is_lost_silently_and_presence_is_true() -> None:
    """Every client gets each publication once and in order over all its connections. What was acknowledged is stored
    once. In the end presence is true, and nothing is left over."""
    uvloop.run(run())
