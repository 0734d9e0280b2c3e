"""Workers learn revocations from the hub, also from one that has started again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from beaconfire.base.clock import ManualClock
from beaconfire.base.timers import Timers
from beaconfire.engines.memory import memory_engine
from tests.fakes.hub import LocalHub, wait_until
from tests.unit.node.revoking_node import Node


def test_a_worker_that_was_cut_off_learns_what_was_revoked_meanwhile(tmp_path: Path) -> None:
    """Until then it accepts no token. The other worker goes on."""

    async def main() -> None:
        clock = ManualClock()
        timers = Timers(clock)
        hub = LocalHub(str(tmp_path / "hub"), memory_engine(clock), timers)
        await hub.start()
        one, two = Node(hub.worker(), clock, timers), Node(hub.worker(), clock, timers)
        for name, node in (("one", one), ("two", two)):
            await node.engine.broker.start(node)
            await node.engine.control.start(name, node)
            node.stream.start()
        await wait_until(lambda: one.is_ready() and two.is_ready())
        await one.revoke("ann")
        await wait_until(lambda: two.refuses("ann"))
        assert not two.refuses("bob")
        hub.cut("two")
        await wait_until(lambda: not two.is_ready())
        await one.revoke("bob")
        assert two.refuses("eve")
        hub.reconnect()
        await wait_until(two.is_ready)
        assert [two.refuses(user) for user in ("ann", "bob", "eve")] == [True, True, False]
        for node in (one, two):
            node.stream.stop()
            await node.engine.control.stop()
            await node.engine.broker.stop()
        await hub.stop()

    asyncio.run(main())
