"""Settings of the engine."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from beaconfire.base.options import Options
from beaconfire.base.units import Seconds, Size


class EngineOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What keeps history and presence, and joins nodes."""

    type: Annotated[Literal["memory"], Meta(description="`memory`: in this process, nothing else needed.")] = "memory"
    history_meta_ttl: Annotated[
        Seconds, Meta(description="How long a channel's position outlives its last publication.")
    ] = Seconds(30 * 86400)
    history_max_bytes: Annotated[
        Size,
        Meta(
            description="Memory for the history and positions of all channels together; beyond it the oldest "
            "publications are dropped, in whatever channel, and clients that come back for them are told "
            "`recovered: false`."
        ),
    ] = Size(1024**3)
    detach_delay: Annotated[
        Seconds, Meta(description="How long the node still listens to a channel after its last subscriber left.")
    ] = Seconds(1)
