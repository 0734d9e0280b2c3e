"""Transports that do not belong to a session yet, and transports of sessions that move."""

from __future__ import annotations

from typing import Any

import pytest

from beaconfire.base.errors import BAD_PROTOCOL, SHUTDOWN
from beaconfire.model.events import LimitHit
from beaconfire.protocols.centrifuge.connection import CentrifugeConnection
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.session.factory import SessionFactory
from beaconfire.session.registry import ClientIdInUse
from beaconfire.session.transport_link import NO_TRANSPORT, NewTransport
from beaconfire.transports.traits import SessionTraits
from tests.fakes.transport import HANDSHAKE, RecordingTransport
from tests.unit.kit import NodeHarness


class Fixture:
    """A transport whose messages are kept until a test assigns the transport."""

    def __init__(self, **options: Any) -> None:
        self.harness = NodeHarness(**options)
        operations, self.codec = self.harness.node.operations, JsonCodec()
        self.sessions: SessionFactory = self.harness.node.sessions(
            SessionTraits(), lambda session: CentrifugeConnection(session, operations, self.codec), lambda: "id"
        )
        self.transport = RecordingTransport()
        self.read: list[bytes] = []
        self.new = self.sessions.receive_first(self.transport, HANDSHAKE, self._read)

    def _read(self, new: NewTransport, data: bytes, binary: bool) -> None:
        self.read.append(data)

    def assign(self) -> None:
        self.session = self.sessions.open_session(self.transport, self.harness.wire(self.codec), self.new.handshake)
        self.new.assign(self.session)


def test_messages_are_read_until_the_transport_belongs_to_a_session() -> None:
    """Later messages are those of the session, and so is the end of the transport."""
    fixture = Fixture()
    fixture.new.on_data(b"first", False)
    fixture.new.on_data(b"second", False)
    fixture.assign()
    fixture.new.on_data(b'{"id":1,"connect":{}}', False)
    assert fixture.read == [b"first", b"second"]
    fixture.harness.run_scheduled()
    assert len(fixture.transport.writes) == 1
    fixture.new.on_closed()
    assert fixture.session.has_ended()


def test_calls_before_the_assignment_do_no_harm() -> None:
    """The transport has no positions, and its control frames are not counted."""
    fixture = Fixture()
    fixture.new.on_control_frame(10)
    fixture.new.on_transport_pong()
    fixture.new.on_writable()
    assert fixture.new.positions() is None
    assert fixture.transport.closed is None


def test_transport_without_a_session_counts_as_a_connection() -> None:
    """Once: as this transport, and then as that of its session."""
    fixture = Fixture()
    registry = fixture.harness.node.registry
    assert registry.connections == 1
    fixture.assign()
    assert registry.connections == 1
    fixture.new.on_closed()
    assert registry.connections == 0


def test_transport_without_a_session_is_closed_after_a_time() -> None:
    """After `client.stale_close_delay`, with 3502. Its messages are not read any more."""
    fixture = Fixture(stale_close_delay=10)
    fixture.harness.advance_time(10)
    assert fixture.transport.closed == (3502, "stale")
    assert fixture.harness.recorder.events == [LimitHit("client.stale_close_delay", "")]
    fixture.new.on_data(b"late", False)
    assert fixture.read == []


@pytest.mark.parametrize(("debug", "reason"), [(False, "bad request"), (True, "bad request: why")])
def test_transport_may_be_refused(debug: bool, reason: str) -> None:
    """Once. The detail is for clients only with `client.debug_reasons`."""
    fixture = Fixture(debug_reasons=debug)
    fixture.new.refuse(BAD_PROTOCOL, "why")
    fixture.new.refuse(SHUTDOWN)
    assert fixture.transport.closed == (3501, reason)
    fixture.harness.advance_time(60)
    assert len(fixture.harness.timers) == 0


def test_refused_transport_counts_as_a_connection_until_it_is_lost() -> None:
    """A peer that does not read its close frame must not make room for another one."""
    fixture = Fixture()
    registry = fixture.harness.node.registry
    fixture.new.refuse(BAD_PROTOCOL)
    assert registry.connections == 1
    fixture.new.on_closed()
    assert registry.connections == 0


def test_lost_transport_leaves_nothing() -> None:
    """No timer stays, and nothing is closed."""
    fixture = Fixture()
    fixture.new.on_closed()
    fixture.harness.advance_time(60)
    assert fixture.transport.closed is None
    assert (fixture.harness.node.registry.connections, len(fixture.harness.timers)) == (0, 0)


def test_chosen_id_must_not_be_in_use() -> None:
    """By an open session, connected or not. It is free when the session has ended."""
    fixture = Fixture()
    wire = fixture.harness.wire(fixture.codec)
    connected = fixture.harness.connect("ann")
    opened = fixture.sessions.open_session(RecordingTransport(), wire, HANDSHAKE, client="chosen")
    for client in (connected.id, "chosen"):
        with pytest.raises(ClientIdInUse):
            fixture.sessions.open_session(RecordingTransport(), wire, HANDSHAKE, client=client)
    assert fixture.sessions.find_session("chosen") is None
    assert fixture.sessions.find_session(connected.id) is connected.session
    opened.end(SHUTDOWN)
    assert fixture.sessions.open_session(RecordingTransport(), wire, HANDSHAKE, client="chosen").client == "chosen"


def test_a_session_without_a_transport_does_nothing_to_it() -> None:
    """There is no peer."""
    NO_TRANSPORT.ping()
    NO_TRANSPORT.close(SHUTDOWN, "")
    NO_TRANSPORT.pause_reading()
    NO_TRANSPORT.resume_reading()
    assert (NO_TRANSPORT.writable, NO_TRANSPORT.buffered_bytes, NO_TRANSPORT.direct) == (False, 0, None)
