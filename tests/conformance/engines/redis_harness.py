"""The engine `redis` at real servers."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import ClassVar

from beaconfire.base.clock import ManualClock
from beaconfire.base.loop import Runtime
from beaconfire.base.timers import Timers
from beaconfire.engines.guard import guard_engine
from beaconfire.engines.memory import random_epoch
from beaconfire.engines.options import RedisOptions
from beaconfire.engines.port import Engine
from beaconfire.engines.redis import RedisEngine, redis_engine
from beaconfire.engines.redis.keys import Keys
from beaconfire.engines.redis.link import DELAY_MAX_S, Link
from beaconfire.testing import control_calls
from tests.acceptance.sdk.python.tcp_proxy import TcpProxy
from tests.fakes.events import EventRecorder
from tests.fakes.hub import wait_until
from tests.fakes.migration import with_migration
from tests.servers.redis_groups import shared_cluster, shared_sentinel
from tests.servers.redis_server import Kind, shared_server

from .harness import NODE, TIMEOUT_S, Harness

_prefixes = itertools.count()


class RedisHarness(Harness):
    """Nodes with one server. The connections of the first node go through a proxy, which can cut them.

    The links have a clock of their own, so that only a lost link makes them connect again.
    """

    can_fail = True
    has_several_nodes = True
    has_link = True
    durabilities = ("memory", "disk", "replicated")
    kind: ClassVar[Kind] = "redis"

    def prepare(self) -> None:
        self.server = shared_server(self.kind)
        self.proxy = TcpProxy(self.server.port)
        self.keys = Keys(prefix := f"t{next(_prefixes)}")
        self._prefix = prefix
        self._link_clock = ManualClock()
        self._link_timers = Timers(self._link_clock)
        self._engines: list[RedisEngine] = []

    def make_engine(self) -> Engine:
        runtime = Runtime(asyncio.get_running_loop().call_soon, self.timers, self._link_timers, random.Random(0).random)
        options = RedisOptions(url=self.url(), prefix=self._prefix)
        engine = redis_engine(options, runtime, EventRecorder(), random_epoch)
        self._engines.append(engine)
        return guard_engine(control_calls(with_migration(engine), self.calls), TIMEOUT_S, self.timers, self.events)

    def url(self) -> str:
        """Where the next node connects to."""
        return f"redis://127.0.0.1:{self.server.port if self._engines else self.proxy.port}"

    async def open(self) -> None:
        await self.proxy.open()
        await super().open()

    async def close(self) -> None:
        await super().close()
        self.proxy.close()

    def links(self) -> list[Link]:
        """Those that are up."""
        return [link for engine in self._engines for link in engine.servers.links() if link.is_up]

    async def advance(self, seconds: float) -> None:
        self.server.advance(seconds)
        await super().advance(seconds)
        await self.settle()

    async def settle(self) -> None:
        for link in self.links():
            await link.round_trip()

    async def lose_link(self) -> None:
        self.node.expects_link_events = True
        links = len(self.node.links)
        self.proxy.cut()
        await wait_until(lambda: len(self.node.links) > links)
        node = self.keys.node(NODE)
        await wait_until(lambda: self.server.call("PUBSUB", "NUMSUB", node)[1] == 0)

    async def restore_link(self) -> None:
        self.proxy.restore()
        (link,) = self._engines[0].servers.links()

        def is_up() -> bool:
            if not link.is_up and (link._attempt is None or link._attempt.done()):
                self._link_clock.advance(DELAY_MAX_S)
                self._link_timers.run_due()
            return link.is_up

        await wait_until(is_up)


class ValkeyHarness(RedisHarness):
    kind = "valkey"


class SentinelHarness(RedisHarness):
    """A sentinel tells where the server is."""

    has_link = False  # the connections go past the proxy

    def url(self) -> str:
        return shared_sentinel().url


class ClusterHarness(RedisHarness):
    """Three masters share the channels, and announce them in their shards."""

    has_link = False  # each master announces its own address

    def prepare(self) -> None:
        super().prepare()
        self.cluster = shared_cluster()

    def url(self) -> str:
        return self.cluster.url

    async def advance(self, seconds: float) -> None:
        self.cluster.advance(seconds)
        await super().advance(seconds)


REDIS_ENGINES: dict[str, type[Harness]] = {
    "redis": RedisHarness,
    "valkey": ValkeyHarness,
    "redis-sentinel": SentinelHarness,
    "redis-cluster": ClusterHarness,
}
