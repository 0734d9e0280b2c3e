"""Groups of Redis servers: a cluster, and a server that a sentinel watches."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence

from bench.processes import HeldPort
from tests.servers.process import START_DEADLINE_S, ServerProcess
from tests.servers.redis_server import RedisServer, shared_server

SLOTS = 16384


class ClusterNode(RedisServer):
    """One node of a cluster, alone at first."""

    def __init__(self, *options: str) -> None:
        self.bus = HeldPort()
        cluster = ("--cluster-enabled", "yes", "--cluster-port", str(self.bus.number), "--cluster-node-timeout", "2000")
        super().__init__("redis", *cluster, *options)

    def close(self) -> None:
        """See `ServerProcess.close`."""
        super().close()
        self.bus.close()

    @property
    def id(self) -> str:
        return str(self.call("CLUSTER", "MYID").decode())


class RedisCluster:
    """`masters` masters with all slots, and as many replicas."""

    def __init__(self, masters: int, *options: str) -> None:
        self.masters = [ClusterNode(*options) for _ in range(masters)]
        self.replicas = [ClusterNode(*options) for _ in range(masters)]

    @property
    def nodes(self) -> Sequence[ClusterNode]:
        return (*self.masters, *self.replicas)

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.masters)

    def start(self) -> None:
        """Returns when every node knows all slots and each master has its replica."""
        for node in self.nodes:
            node.start()
        for number, master in enumerate(self.masters):
            first, end = (SLOTS * each // len(self.masters) for each in (number, number + 1))
            master.call("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            master.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            first_node = self.nodes[0]
            node.call("CLUSTER", "MEET", "127.0.0.1", first_node.port, first_node.bus.number)
        self._wait(
            lambda: all(node.call("CLUSTER", "NODES").count(b" connected") == len(self.nodes) for node in self.nodes)
        )
        for master, replica in zip(self.masters, self.replicas, strict=True):
            replica.call("CLUSTER", "REPLICATE", master.id)
        self._wait(lambda: all(b"cluster_state:ok" in node.call("CLUSTER", "INFO") for node in self.nodes))
        self._wait(
            lambda: all(b"master_link_status:up" in replica.call("INFO", "replication") for replica in self.replicas)
        )

    def _wait(self, condition: Callable[[], bool]) -> None:
        end_s = time.monotonic() + START_DEADLINE_S
        while not condition():
            assert time.monotonic() < end_s, "the cluster does not form"
            time.sleep(0.05)

    def advance(self, seconds: float) -> None:
        """Sets the clocks of all nodes forward."""
        for node in self.nodes:
            node.advance(seconds)

    def close(self) -> None:
        for node in self.nodes:
            node.close()


class Sentinel(ServerProcess):
    """A sentinel that alone decides about the servers of the name `main`."""

    def __init__(self, master: RedisServer) -> None:
        super().__init__(["redis-sentinel", "{folder}/sentinel.conf"])
        (self.folder / "sentinel.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n"
        )

    @property
    def url(self) -> str:
        return f"redis+sentinel://127.0.0.1:{self.port}/main"


@functools.cache
def shared_cluster() -> RedisCluster:
    """One cluster for all tests of this process that use key prefixes of their own."""
    cluster = RedisCluster(3, "--appendonly", "yes", "--appendfsync", "always")
    cluster.start()
    return cluster


@functools.cache
def shared_sentinel() -> Sentinel:
    """The sentinel of the shared server."""
    sentinel = Sentinel(shared_server("redis"))
    sentinel.start()
    return sentinel
