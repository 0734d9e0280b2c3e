"""A replica is promoted that lacks what the old master has acknowledged.

`FAILOVERS=50` runs more of them.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.disk.api_connection import ApiConnection
from tests.acceptance.json_client import JSONClient
from tests.acceptance.redis_trouble.conftest import Node, running_node
from tests.servers.redis_server import RedisServer

FAILOVERS = int(os.environ.get("FAILOVERS", "2"))
DEADLINE_S = 60 + 10 * FAILOVERS


@pytest.mark.timeout(DEADLINE_S + 30)
def test_a_loss_is_told_to_those_that_it_concerns(tmp_path: Path) -> None:
    """A client that has not seen the lost publications recovers or goes on without a gap. A client that has seen one of
    them is told."""

    async def scenario() -> None:
        master = RedisServer()
        master.start()
        async with running_node(tmp_path, master.port) as one, running_node(tmp_path, master.port) as two:
            for number in range(FAILOVERS):
                master = await fail_over(f"room{number}", master, one, two)
        master.close()
        print(f"{FAILOVERS} failovers")

    run_scenario(scenario(), DEADLINE_S)


async def fail_over(channel: str, master: RedisServer, one: Node, two: Node) -> RedisServer:
    """Returns the new master."""
    replica = master.start_replica()
    async with (
        JSONClient.connect(one.server.port, channels=[channel]) as ahead,
        JSONClient.connect(two.server.port, channels=[channel]) as behind,
        JSONClient.connect(one.server.port) as late,
        ApiConnection.open(one.server.port) as api,
    ):
        for number in range(100):
            epoch = (await api.publish(channel, number))["epoch"]
        await wait_until(lambda: len(behind.received_data(channel)) == 100, "all are delivered")
        master.call("SET", "mark", number)
        assert master.call("WAIT", 1, 5000) == 1
        replica.call("REPLICAOF", "NO", "ONE")
        two.proxy.cut()
        for number in range(100, 110):
            assert (await api.publish(channel, f"lost {number}"))["offset"] == number + 1
        await wait_until(lambda: len(ahead.received_data(channel)) == 110, "the lost ones were delivered")
        one.proxy.cut()
        master.stop(signal.SIGKILL)
        for node in (one, two):
            node.proxy.server_port = replica.port
            node.proxy.restore()
        for node in (one, two):
            await node.wait_ready()
        await wait_until(lambda: any("unsubscribe" in push for push in ahead.pushes), "the client is told")
        kept = [(await api.publish(channel, f"new {number}"))["offset"] for number in range(12)]
        assert kept == sorted(kept)
        assert kept[0] > 110

        news = [f"new {number}" for number in range(12)]
        await wait_until(lambda: len(behind.received_data(channel)) >= 112, "the others go on")
        assert behind.received_data(channel) == [*range(100), *news]
        assert not any("unsubscribe" in push for push in behind.pushes)
        assert ahead.received_data(channel)[110:] == []
        for offset, recovered, expected in ((100, True, news), (110, False, []), (kept[3], True, news[4:])):
            request = {"channel": channel, "recover": True, "epoch": epoch, "offset": offset}
            reply = (await late.request(subscribe=request))["subscribe"]
            await late.request(unsubscribe={"channel": channel})
            assert reply.get("recovered", False) is recovered, (offset, reply)
            found = [publication["data"] for publication in reply.get("publications", [])]
            assert found == expected or not recovered
    master.close()
    return replica
