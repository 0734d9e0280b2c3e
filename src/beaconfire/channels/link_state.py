"""For which channels the link of the broker is lost."""

from __future__ import annotations

from collections.abc import Sequence


class LinkState:
    """The link is up at the start. It can be lost and come back for all channels, or for some of them: an engine may
    have one link per server."""

    def __init__(self) -> None:
        self._all_down = False
        self._exceptions: set[str] = set()
        """The channels whose link is up although `_all_down` is true, or down although it is false."""

    def is_down(self, channel: str) -> bool:
        return (channel in self._exceptions) is not self._all_down

    def down(self, channels: Sequence[str] | None) -> None:
        """The link of these channels is lost, None: of all channels."""
        self._set(channels, True)

    def up(self, channels: Sequence[str] | None) -> None:
        """The link of these channels is back, None: of all channels."""
        self._set(channels, False)

    def _set(self, channels: Sequence[str] | None, down: bool) -> None:
        if channels is None:
            self._all_down = down
            self._exceptions.clear()
        elif self._all_down is down:
            self._exceptions.difference_update(channels)
        else:
            self._exceptions.update(channels)
