"""Sentinels, or the nodes of a cluster, promote a replica that lacks what the old master has acknowledged.

`FAILOVERS=50` runs more of them.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from beaconfire.engines.redis.keys import Keys, slot_of
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.disk.api_connection import ApiConnection
from tests.acceptance.json_client import JSONClient
from tests.acceptance.redis_trouble.conftest import CONFIG
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import http_request
from tests.servers.redis_groups import SLOTS, RedisCluster, Sentinel
from tests.servers.redis_server import RedisServer

FAILOVERS = int(os.environ.get("FAILOVERS", "1"))
DEADLINE_S = 60 + 20 * FAILOVERS
LOST = 10


class Group:
    """A master with a replica, whose roles change with each failover."""

    def __init__(
        self,
        url: str,
        servers: list[RedisServer],
        promote: Callable[[RedisServer], None],
        rejoin: Callable[[RedisServer, RedisServer], None],
    ) -> None:
        """`promote` makes the replica the master, and `rejoin` the old master the replica of the new one, as far as
        nobody else does, or not soon."""
        self.url = url
        self.servers = servers
        self._promote = promote
        self._rejoin = rejoin

    async def fail_over(self, lose: Callable[[], Awaitable[None]], again: bool) -> None:
        """`lose` is awaited between the end of the replication and that of the master. With `again`, another failover
        can follow."""
        master, replica = sorted(self.servers, key=lambda server: not server.is_master)
        await wait_until(lambda: _offset(master) == _offset(replica), "the replica has everything")
        master.refuse_replicas()
        await lose()
        await asyncio.to_thread(master.stop, signal.SIGKILL)
        self._promote(replica)
        await wait_until(lambda: replica.is_master, "the replica is the master", 30.0)
        if not again:
            return
        await asyncio.to_thread(master.start)
        self._rejoin(master, replica)
        await wait_until(lambda: b"master_link_status:up" in master.call("INFO", "replication"), "it follows", 30.0)


def _offset(server: RedisServer) -> bytes:
    lines = server.call("INFO", "replication").splitlines()
    return bytes(next(line for line in lines if line.startswith(b"master_repl_offset:")))


@pytest.fixture(params=["sentinel", "cluster"])
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    if request.param == "sentinel":
        master = RedisServer()
        master.start()
        replica = master.start_replica()
        sentinel = Sentinel(master)
        sentinel.start()
        yield Group(
            sentinel.url,
            [master, replica],
            lambda replica: None,
            lambda old, new: old.call("REPLICAOF", "127.0.0.1", new.port),
        )
        for server in (sentinel, replica, master):
            server.close()
        return
    cluster = RedisCluster(3)
    cluster.start()
    number = slot_of(Keys("beaconfire").announcement("room0")) * 3 // SLOTS
    servers: list[RedisServer] = [cluster.masters[number], cluster.replicas[number]]
    yield Group(
        cluster.url,
        servers,
        lambda replica: replica.call("CLUSTER", "FAILOVER", "TAKEOVER"),
        lambda old, new: None,
    )
    cluster.close()


@pytest.mark.timeout(DEADLINE_S + 60)
def test_a_loss_is_told_to_those_that_it_concerns(group: Group, tmp_path: Path) -> None:
    """A client at a position before the loss recovers everything. One that has received a lost publication is told."""

    async def scenario() -> None:
        server = ServerProcess(tmp_path, CONFIG, {"redis.url": group.url})
        await asyncio.to_thread(server.start)
        try:
            for number in range(FAILOVERS):
                await fail_over(group, server, number)
        finally:
            server.__exit__(None, None, None)
        print(f"{FAILOVERS} failovers")

    run_scenario(scenario(), DEADLINE_S)


async def fail_over(group: Group, server: ServerProcess, number: int) -> None:
    channel = "room0"
    async with (
        ApiConnection.open(server.port) as api,
        JSONClient.connect(server.port, channels=[channel]) as live,
        JSONClient.connect(server.port) as late,
    ):

        async def publish_all(kind: str, count: int) -> list[int]:
            return [(await api.publish(channel, f"{kind} {number} {n}"))["offset"] for n in range(count)]

        kept = await publish_all("kept", 100)
        epoch = (await api.publish(channel, "last"))["epoch"]
        lost: list[int] = []

        async def lose() -> None:
            lost.extend(await publish_all("lost", LOST))
            await wait_until(lambda: len(live.received_data(channel)) == 101 + LOST, "the lost ones were delivered")

        await group.fail_over(lose, again=number + 1 < FAILOVERS)

        async def is_ready() -> bool:
            return (await http_request(server, "/health/ready"))[0] == 200

        await wait_until(is_ready, "the server is ready", 30.0)
        await wait_until(lambda: any("unsubscribe" in push for push in live.pushes), "the client is told")
        new = await publish_all("new", 12)
        assert new[0] > lost[-1]
        assert "lost" not in str(live.received_data(channel)[101 + LOST :])
        news = [f"new {number} {n}" for n in range(12)]
        cases: list[tuple[int, bool, list[str]]] = [(kept[-1], True, ["last", *news]), (new[3], True, news[4:])]
        cases += [(lost[0], False, []), (lost[-1], False, [])]
        for offset, recovered, expected in cases:
            request = {"channel": channel, "recover": True, "epoch": epoch, "offset": offset}
            reply = (await late.request(subscribe=request))["subscribe"]
            await late.request(unsubscribe={"channel": channel})
            assert reply.get("recovered", False) is recovered, (offset, reply)
            found = [publication["data"] for publication in reply.get("publications", [])]
            assert found == expected or not recovered
