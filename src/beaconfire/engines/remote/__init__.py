"""The engine of a worker process: all calls go to the hub, another process of this machine (`engines.hub`).

What a lost link means: waiting calls fail and new calls fail at once, with `EngineUnavailable`. The link reconnects by
itself. Nothing is repeated: the caller knows whether it may repeat a call whose outcome is not known.
"""

from __future__ import annotations

from beaconfire.base.loop import Runtime
from beaconfire.engines.port import Durability, Engine, EngineState
from beaconfire.engines.remote.broker import RemoteBroker
from beaconfire.engines.remote.control import RemoteControlBus
from beaconfire.engines.remote.link import Link
from beaconfire.engines.remote.migration import RemoteMigration
from beaconfire.engines.remote.presence import RemotePresenceStore
from beaconfire.engines.wire.unix_socket import OpenConnection, check_path, open_unix_connection


class RemoteEngine(Engine, frozen=True, kw_only=True):
    """An engine whose data is in the hub, so its statistics are zero here."""

    link: Link

    def state(self) -> EngineState:
        """See `Engine.state`. Down while the link is down; the detail says why."""
        return self.link.state()


def remote_engine(
    path: str,
    runtime: Runtime,
    version: str,
    durabilities: tuple[Durability, ...] = ("memory",),
    keeps_order: bool = True,
    name: str = "remote",
    open_connection: OpenConnection = open_unix_connection,
) -> RemoteEngine:
    """Creates an engine that finds the hub at the Unix socket `path`.

    `version` is Beaconfire's. `durabilities` and `keeps_order` are those of the hub's engine: with any other hub the
    link stays down. `open_connection` makes each connection. Raises HubSocketError if the path is too long.
    """
    check_path(path)
    link = Link(path, name, version, durabilities, keeps_order, runtime, open_connection)
    return RemoteEngine(
        name,
        RemoteBroker(link, name, durabilities),
        RemotePresenceStore(link),
        RemoteControlBus(link),
        durabilities=durabilities,
        keeps_order=keeps_order,
        migration=RemoteMigration(link),
        link=link,
    )


__all__ = ["RemoteEngine", "remote_engine"]
