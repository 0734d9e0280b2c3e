"""Sessions that outlive a transport: the state without a transport, and the calls of successive transports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from beaconfire.base.errors import CONNECTION_CLOSED, DisconnectCode
from beaconfire.protocols.port import Frame
from beaconfire.transports.port import Receiver, Transport


class LinkedSession(Receiver, Protocol):
    """The part of a session that a `TransportLink` uses."""

    @property
    def transport(self) -> Transport: ...


class TransportLink:
    """The `Receiver` of one of the successive transports of a session. Ignores a transport that has been replaced."""

    __slots__ = ("_session", "_transport")

    def __init__(self, session: LinkedSession, transport: Transport) -> None:
        self._session = session
        self._transport = transport

    def _is_current(self) -> bool:
        return self._session.transport is self._transport

    def on_data(self, data: bytes, binary: bool) -> None:
        if self._is_current():
            self._session.on_data(data, binary)

    def on_control_frame(self, size: int) -> None:
        if self._is_current():
            self._session.on_control_frame(size)

    def on_transport_pong(self) -> None:
        if self._is_current():
            self._session.on_transport_pong()

    def on_writable(self) -> None:
        if self._is_current():
            self._session.on_writable()

    def positions(self) -> Mapping[str, tuple[int, str]] | None:
        return self._session.positions() if self._is_current() else None

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        if self._is_current():
            self._session.on_closed(code)


class NoTransport:
    """The transport of a session that waits for another one: it takes nothing."""

    name = "none"
    secret = ""
    writable = False
    buffered_bytes = 0
    direct = None

    def write(self, frames: Sequence[Frame]) -> None:
        raise AssertionError("the transport is not writable")

    def write_rest(self, data: bytes, sent: int) -> None:
        raise AssertionError("the transport is not writable")

    def ping(self) -> None:
        """There is no peer."""

    def close(self, code: DisconnectCode, reason: str) -> None:
        """There is no connection."""

    def pause_reading(self) -> None:
        """There is no connection."""

    def resume_reading(self) -> None:
        """There is no connection."""


NO_TRANSPORT: Final = NoTransport()
