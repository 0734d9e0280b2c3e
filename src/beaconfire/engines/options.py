"""Options of the engine."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from beaconfire.base.options import Options
from beaconfire.base.units import Seconds, Size


class EngineOptions(Options, frozen=True, kw_only=True):
    """The engine: broker, history and presence."""

    type: Annotated[
        Literal["memory"], Meta(description="`memory`: inside this process, without any other service.")
    ] = "memory"
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
