"""The hub: gives one engine to the nodes of several worker processes on this machine, over a Unix socket.

Each worker has the engine of `engines.remote`. The hub does everything in memory itself except for the calls of the
broker and the presence store, which go to the inner engine.
"""

from __future__ import annotations

from beaconfire.engines.hub.server import EngineHub, EngineHubStatistics, Listener
from beaconfire.engines.hub.socket_file import HubSocket

__all__ = ["EngineHub", "EngineHubStatistics", "HubSocket", "Listener"]
