"""The node of an engine without clients, whose streams are only copied."""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.model.publication import ClientInfo, Publication


class NoNode:
    """Implements `BrokerEvents`: no channel is attached, so nothing is announced."""

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        previous: int,
        exclude: Sequence[str],
        delta: bool = False,
    ) -> None:
        """Never called."""

    def on_join(self, channel: str, info: ClientInfo) -> None:
        """Never called."""

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        """Never called."""

    def on_link_down(self, channels: Sequence[str] | None) -> None:
        """Nothing is attached."""

    def on_link_up(self, channels: Sequence[str] | None) -> None:
        """Nothing is attached."""
