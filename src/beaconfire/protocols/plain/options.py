"""Options of the plain protocol."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from beaconfire.base.options import Options


class PlainOptions(Options, frozen=True, kw_only=True):
    """The plain JSON protocol for clients without an SDK."""

    enabled: Annotated[bool, Meta(description="Serve the plain protocol.")] = True
    path: Annotated[str, Meta(pattern="^/", description="Path of its WebSocket endpoint.")] = "/ws"
    lobby: Annotated[
        bool,
        Meta(
            description="A frame that is not a message of the protocol is published to every connection, the sender "
            "included."
        ),
    ] = False
    lobby_channel: Annotated[str, Meta(min_length=1, description="Channel in which these frames are published.")] = (
        "lobby"
    )
