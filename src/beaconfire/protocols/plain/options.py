"""Settings of the plain protocol."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from beaconfire.base.options import Options


class PlainOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plain JSON protocol for people without an SDK, at `/ws`."""

    enabled: Annotated[bool, Meta(description="Serve the plain protocol.")] = True
    path: Annotated[str, Meta(pattern="^/", description="Where.")] = "/ws"
    lobby: Annotated[
        bool,
        Meta(description="Frames that are no message of the protocol go to every connection, the sender too."),
    ] = False
    lobby_channel: Annotated[str, Meta(min_length=1, description="The channel that carries them.")] = "lobby"
