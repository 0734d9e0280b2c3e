"""The engine `redis`: nodes on many machines share channels through Redis or Valkey.

Follow a publication: `broker` makes the command, `servers` finds the `link` to the master of the channel, and the
script `lua/publish.lua` stores and announces the publication in one step. The announcement arrives at every node that
has subscribed, through its own link.

**What is lost, and who is told.** A server answers before its replicas or its disk have the publication. So after the
end of a server, its successor, or the same server when it restarts, may lack the newest publications of a channel. It
never lacks older ones: replication and the append-only file lose only a suffix. Each server has a *lineage*, a name
that changes with the process that holds the data. The first publish of a channel under a new lineage leaves a gap in
the offsets that is larger than whatever was lost: no offset that an earlier server may have given out is used again.
The epoch stays. So a client at a position before the loss recovers without a gap, a client that has seen a publication
which is lost is told, and for the usual restart that loses nothing, nobody notices anything.

A server that has lost everything has new epochs.
"""

from __future__ import annotations

from collections.abc import Callable

from beaconfire.base.loop import Runtime
from beaconfire.engines.options import DURABILITIES, RedisOptions
from beaconfire.engines.port import Engine, EngineState
from beaconfire.engines.redis.address import Address, Host, parse_address
from beaconfire.engines.redis.broker import START_PATIENCE_S, RedisBroker
from beaconfire.engines.redis.cluster import Cluster
from beaconfire.engines.redis.control import RedisControlBus
from beaconfire.engines.redis.keys import Keys
from beaconfire.engines.redis.link import Link, LinkOwner
from beaconfire.engines.redis.nonces import Nonces
from beaconfire.engines.redis.presence import RedisPresenceStore
from beaconfire.engines.redis.sentinels import Sentinels
from beaconfire.engines.redis.servers import Locate, OneServer, Servers
from beaconfire.model.events import EventSink


class RedisEngine(Engine, frozen=True, kw_only=True):
    """The state is that of the links."""

    servers: Servers

    def state(self) -> EngineState:
        """See `Engine.state`."""
        return self.servers.state()


def redis_engine(
    options: RedisOptions, runtime: Runtime, events: EventSink, random_name: Callable[[], str]
) -> RedisEngine:
    """The engine of one node. `random_name` returns at least six random letters. `events` gets `EngineConnected`.

    Raises ValueError, without the password, if `options.url` is no URL of a known form.
    """
    address, keys, nonces = parse_address(options.url), Keys(options.prefix), Nonces(random_name)

    def make_link(owner: LinkOwner, locate: Locate, tag: Callable[[], str]) -> Link:
        return Link(
            address,
            locate,
            keys,
            owner,
            runtime,
            events,
            nonces.new_text,
            tag,
            sharded=address.kind == "cluster",
            replicas=options.replicas,
            confirm_timeout_s=float(options.confirm_timeout),
        )

    servers: Servers
    if address.kind == "cluster":
        servers = Cluster(address, runtime, make_link)
    else:
        servers = OneServer(_locate(address, runtime), make_link)
    return RedisEngine(
        "redis",
        RedisBroker(servers, keys, nonces.new, runtime.timers.clock.now_s),
        RedisPresenceStore(servers, keys),
        RedisControlBus(servers, keys, runtime),
        durabilities=DURABILITIES["redis"],
        keeps_order=True,
        start_wait_s=START_PATIENCE_S,
        servers=servers,
    )


def _locate(address: Address, runtime: Runtime) -> Locate:
    if address.kind == "sentinel":
        return Sentinels(address, runtime).locate

    async def locate() -> Host:
        return address.hosts[0]

    return locate


__all__ = ["RedisEngine", "parse_address", "redis_engine"]
