"""Sessions that outlive a transport: the calls of successive transports, and the state without a transport.

If the first message of a transport tells to which session it belongs, then a `NewTransport` receives this message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from beaconfire.base.errors import CONNECTION_CLOSED, STALE, DisconnectCode
from beaconfire.model.events import LimitHit
from beaconfire.model.handshake import Handshake
from beaconfire.protocols.port import Frame
from beaconfire.session.context import SessionContext
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


class NewTransport:
    """The `Receiver` of a transport whose first messages tell to which session it belongs.

    A transport without a session counts as a connection until it is lost. It is closed after
    `client.stale_close_delay`.
    """

    __slots__ = ("_context", "_link", "_read", "_timer", "handshake", "transport")

    def __init__(
        self,
        context: SessionContext[Any],
        transport: Transport,
        handshake: Handshake,
        read: Callable[[NewTransport, bytes, bool], None],
    ) -> None:
        """`read` gets each message until the transport belongs to a session or is refused."""
        self.transport = transport
        self.handshake = handshake
        self._context = context
        self._read: Callable[[NewTransport, bytes, bool], None] | None = read
        self._link: TransportLink | None = None
        self._timer = context.timers.after(context.options.stale_close_delay, self._on_stale)
        context.registry.unassigned.add(self)

    def assign(self, session: LinkedSession) -> None:
        """The transport belongs to this session from now on."""
        self._stop_reading()
        self._context.registry.unassigned.discard(self)
        self._link = TransportLink(session, self.transport)

    def refuse(self, code: DisconnectCode, detail: str = "") -> None:
        """Closes the transport. `detail` reaches the client only with `client.debug_reasons`. Idempotent."""
        if self._read is None:
            return
        self._stop_reading()
        is_shown = detail and self._context.options.debug_reasons
        self.transport.close(code, f"{code.reason}: {detail}" if is_shown else code.reason)

    def _stop_reading(self) -> None:
        self._read = None
        self._timer.cancel()

    def _on_stale(self) -> None:
        self._context.events.emit(LimitHit("client.stale_close_delay", ""))
        self.refuse(STALE, "no message in time that tells the session")

    def on_data(self, data: bytes, binary: bool) -> None:
        if self._link is not None:
            self._link.on_data(data, binary)
        elif self._read is not None:
            self._read(self, data, binary)

    def on_control_frame(self, size: int) -> None:
        if self._link is not None:
            self._link.on_control_frame(size)

    def on_transport_pong(self) -> None:
        if self._link is not None:
            self._link.on_transport_pong()

    def on_writable(self) -> None:
        if self._link is not None:
            self._link.on_writable()

    def positions(self) -> Mapping[str, tuple[int, str]] | None:
        return self._link.positions() if self._link is not None else None

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        if self._link is not None:
            self._link.on_closed(code)
        else:
            self._stop_reading()
            self._context.registry.unassigned.discard(self)


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
