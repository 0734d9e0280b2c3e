"""The port between the hub and whatever heals channels on this node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from beaconfire.model.publication import Publication


class Announcement(Struct, frozen=True):
    """What the broker has announced. The fields are those of `engines.port.BrokerEvents.on_publication`."""

    publication: Publication
    epoch: str
    previous: int
    exclude: Sequence[str]
    delta: bool


class Healer(Protocol):
    """Finds the publications of a channel that this node has missed."""

    def on_hole(self, channel: str, announcement: Announcement) -> None:
        """The predecessor of this publication has not reached the hub, or the epoch is another one.

        The hub has not delivered the publication. The healer gives it to the hub again, after those that are missing.
        """
