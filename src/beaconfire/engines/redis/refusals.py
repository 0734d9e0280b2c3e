"""What the error replies of a server mean."""

from __future__ import annotations

from typing import Final

from beaconfire.base.errors import EngineUnavailable, StorageFull
from beaconfire.engines.redis.connection import ServerError

NOT_MASTER: Final = frozenset({"READONLY", "LOADING", "MASTERDOWN", "NOSCRIPT", "UNBLOCKED", "CLUSTERDOWN"})
"""Replies after which another connection, perhaps to another server, is needed. The command had no effect."""

MOVED: Final = frozenset({"MOVED", "ASK"})
"""The key belongs to another master of the cluster. The command had no effect."""

_TEMPORARY: Final = NOT_MASTER | MOVED | {"NOREPLICAS", "MISCONF", "BUSY", "TRYAGAIN", "EXECABORT"}


def explain(error: ServerError, where: str) -> Exception:
    """The error of a call whose command was refused by the server at `where`. A reply that is not listed is a defect of
    this engine."""
    if error.code == "OOM":
        return StorageFull(f"{where} is out of memory: raise maxmemory, or keep less history")
    if error.code == "NOPERM":
        return EngineUnavailable(f"{where}: {error}: the user needs more rights, see the page about the engine redis")
    if error.code in _TEMPORARY:
        return EngineUnavailable(f"engine 'redis': {where}: {error}")
    return error
