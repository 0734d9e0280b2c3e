"""What the parts of the hub know of one connected worker."""

from __future__ import annotations

from typing import Protocol

from beaconfire.engines.wire.messages import Message


class Peer(Protocol):
    """One connection of a worker."""

    attached: set[str]
    """The channels whose announcements this worker gets."""

    node: str
    """The uid of its node while the control bus is started there, otherwise empty."""

    @property
    def is_closed(self) -> bool:
        """Nothing is sent any more."""

    def write(self, frame: bytes) -> None:
        """Sends a frame after all frames before it."""

    def reply(self, message: Message) -> None:
        """Sends a reply, or an error instead of a reply that is too long."""

    def close(self, reason: str) -> None:
        """Ends the connection."""
