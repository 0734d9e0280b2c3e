"""The endpoint: finds or makes the session of each transport by the client's `hello`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from beaconfire.base.errors import BAD_PROTOCOL, CONNECTION_DENIED, FORCE_RECONNECT
from beaconfire.model.handshake import Handshake
from beaconfire.protocols.port import ProtocolError, Wire
from beaconfire.session.factory import SessionFactory
from beaconfire.session.registry import ClientIdInUse
from beaconfire.session.session import Session
from beaconfire.session.transport_link import NewTransport
from beaconfire.transports.port import Receiver, Transport
from beaconfire.transports.traits import Pings, SessionTraits
from tests.conformance.sessions.parcel.connection import ParcelConnection
from tests.conformance.sessions.parcel.delivery import NumberedWire
from tests.conformance.sessions.parcel.messages import ClientMessage, Hello, MessageBuffer

RESUME_S: Final = 60.0
TRAITS: Final = SessionTraits(Pings.CLIENT, resume_s=RESUME_S)


class ParcelEndpoint:
    """`open` is called for each transport that the server has accepted."""

    def __init__(self, sessions: SessionFactory, framing: Callable[[], Wire], traits: SessionTraits) -> None:
        """`framing` returns the wire of a transport."""
        self._sessions = sessions
        self._framing = framing
        self._traits = traits

    def open(self, transport: Transport, handshake: Handshake) -> Receiver:
        buffer = MessageBuffer()
        return self._sessions.receive_first(
            transport, handshake, lambda new, data, binary: self._read(new, buffer, data)
        )

    def _read(self, new: NewTransport, buffer: MessageBuffer, data: bytes) -> None:
        try:
            messages = buffer.decode(data)
        except ProtocolError as error:
            new.refuse(BAD_PROTOCOL, str(error))
            return
        if not messages:
            return
        hello, *rest = messages
        if not isinstance(hello, Hello):
            new.refuse(BAD_PROTOCOL, "the first message must be hello")
            return
        session = self._sessions.find_session(hello.id)
        if session is None:
            self._open_session(new, hello, buffer, rest)
        else:
            self._move_session(new, session, hello, buffer, rest)

    def _open_session(self, new: NewTransport, hello: Hello, buffer: MessageBuffer, rest: list[ClientMessage]) -> None:
        wire = NumberedWire(self._framing())
        try:
            session = self._sessions.open_session(new.transport, wire, new.handshake, self._traits, hello.id)
        except ClientIdInUse:
            new.refuse(FORCE_RECONNECT, "a session with this id is connecting")
            return
        new.assign(session)
        connection = session.protocol
        assert isinstance(connection, ParcelConnection), "made by this endpoint"
        connection.buffer = buffer
        connection.begin(hello)
        connection.handle(rest)

    def _move_session(
        self, new: NewTransport, session: Session, hello: Hello, buffer: MessageBuffer, rest: list[ClientMessage]
    ) -> None:
        connection = session.protocol
        if not isinstance(connection, ParcelConnection) or connection.secret != hello.secret:
            new.refuse(CONNECTION_DENIED, "the id is in use")
            return
        if not connection.move_to(new.transport, self._framing(), hello.acked):
            new.refuse(BAD_PROTOCOL, f"message {hello.acked} was acknowledged before or never sent")
            return
        new.assign(session)
        connection.buffer = buffer
        connection.handle(rest)
