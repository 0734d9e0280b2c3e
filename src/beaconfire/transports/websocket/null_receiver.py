"""The receiver of a connection without a session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from beaconfire.base.errors import CONNECTION_CLOSED, DisconnectCode
from beaconfire.transports.port import Receiver


class NullReceiver:
    """A `Receiver` that ignores everything: before the session is opened, and after it has ended."""

    __slots__ = ()

    def on_data(self, data: bytes, binary: bool) -> None:
        pass

    def on_control_frame(self, size: int) -> None:
        pass

    def on_transport_pong(self) -> None:
        pass

    def on_writable(self) -> None:
        pass

    def positions(self) -> Mapping[str, tuple[int, str]]:
        return {}

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        pass


NULL_RECEIVER: Final[Receiver] = NullReceiver()
