"""Options of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta

from beaconfire.base.options import Options
from beaconfire.base.units import Seconds, Size
from beaconfire.engines.port import Durability

EngineType: TypeAlias = Literal["memory", "sqlite", "redis"]

DURABILITIES: Final[Mapping[EngineType, tuple[Durability, ...]]] = {
    "memory": ("memory",),
    "sqlite": ("memory", "disk"),
    "redis": ("memory", "disk", "replicated"),
}
"""What each engine offers. `Engine.durabilities` of the engine says the same."""


EMBEDDED: Final[frozenset[EngineType]] = frozenset({"memory", "sqlite"})
"""Engines inside a process of the server. With workers, this process is the hub. Workers connect to all other engines
by themselves, as nodes on other machines do."""


class EngineOptions(Options, frozen=True, kw_only=True):
    """The engine: broker, history and presence."""

    type: Annotated[
        EngineType,
        Meta(
            description="`memory`: inside this process, without any other service; nothing survives a restart. "
            '`sqlite`: also inside this process; channels with `durability = "disk"` are in the file `engine.path`. '
            "`redis`: nodes on several machines share channels through the servers of [redis]."
        ),
    ] = "memory"
    path: Annotated[
        str,
        Meta(
            min_length=1,
            description="The database file of the engine `sqlite`. SQLite puts further files next to it, with the "
            "same name and an ending. Must be on a local disk.",
        ),
    ] = "beaconfire.db"
    timeout: Annotated[
        Seconds,
        Meta(
            gt=0,
            description="Deadline of each call to an engine outside this process. Then the command fails with error "
            "100, which is temporary. The engine `memory` needs no deadline.",
        ),
    ] = Seconds(3)
    history_meta_ttl: Annotated[
        Seconds, Meta(description="How long the epoch and offset of a channel are kept after its last publication.")
    ] = Seconds(30 * 86400)
    history_max_bytes: Annotated[
        Size,
        Meta(
            gt=0,
            description="Memory for the history and positions of all channels together. When it is full, the oldest "
            "publications of all channels are dropped; clients that recover them get `recovered: false`.",
        ),
    ] = Size(1024**3)
    detach_delay: Annotated[
        Seconds, Meta(description="How long the node stays attached to a channel after its last subscriber left.")
    ] = Seconds(1)


class RedisOptions(Options, frozen=True, kw_only=True):
    """The servers of the engine `redis`: Redis from version 6.2 on, or Valkey."""

    url: Annotated[
        str,
        Meta(
            min_length=1,
            description="Where the servers are: `redis://[user:password@]host[:port][/database]`, "
            "`redis+sentinel://host[:port],…/master_name[/database]` or `redis+cluster://host[:port],…`. `rediss` "
            "instead of `redis` is TLS; `?ca_file=…` names certificates to trust. Sentinels with a password: "
            "`?sentinel_password=…`.",
            extra={"secret": True},
        ),
    ] = "redis://127.0.0.1:6379"
    prefix: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=64,
            pattern="^[^{}]+$",
            description="How the names of all keys begin. Nodes with the same servers and prefix belong together.",
        ),
    ] = "beaconfire"
    replicas: Annotated[
        int,
        Meta(ge=1, le=100, description="How many replicas must have a publication of durability `replicated`."),
    ] = 1
    confirm_timeout: Annotated[
        Seconds,
        Meta(
            gt=0,
            description="How long a publish of durability `replicated` or `disk` waits for the confirmation. Then the "
            "publisher gets an error, and the publication is stored all the same.",
        ),
    ] = Seconds(1)


class MigrationOptions(Options, frozen=True, kw_only=True):
    """A migration: while the server runs, a second engine gets the streams of [engine] and follows every change."""

    to: Annotated[
        Literal["none", "memory", "sqlite"],
        Meta(description="The type of the new engine, `none` without a migration. See [engine] `type`."),
    ] = "none"
    path: Annotated[
        str,
        Meta(
            min_length=1,
            description="The database file of the new engine `sqlite`. It is made equal to the engine of [engine]: "
            "channels that only this file has are removed. But if [engine] is the engine `memory`, which is empty at "
            "the start, it first gets all channels of this file.",
        ),
    ] = "beaconfire-new.db"
    read_percent: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="Read the history of this part of the channels from the new engine, from 0 to 100. The API "
            "method `migration_read` changes it while the server runs. With 100, the new engine goes on with the same "
            "epochs after the end of the server.",
        ),
    ] = 0
