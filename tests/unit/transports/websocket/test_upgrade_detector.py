"""Detection of upgrades in the first read, without a network and with a manual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from uvicorn.server import ServerState

from beaconfire.base.clock import ManualClock
from beaconfire.base.loop import SLICE_S
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds, Size
from beaconfire.model.events import HandshakeRefused, LimitHit
from beaconfire.model.handshake import Handshake
from beaconfire.protocols.port import Wire
from beaconfire.transports.options import ServerOptions, WebSocketOptions
from beaconfire.transports.port import OpenSession, Receiver, Transport
from beaconfire.transports.websocket import (
    UpgradeDetector,
    WebSocketAcceptor,
    WireSelector,
)
from beaconfire.transports.websocket.deflate import deflate
from beaconfire.transports.websocket.frame_reader import FrameReader, feed
from beaconfire.transports.websocket.single_frame_reader import SingleFrameReader
from beaconfire.transports.websocket.upgrade_detector import UpgradeDetectorProtocol
from beaconfire.transports.websocket_endpoints import SingleCodecEndpoint
from beaconfire.transports.websocket_request import WebSocketRequest

from .support import FakeStream, RecordingReceiver, RecordingSink, in_loop, masked
from .test_framing import StubCodec

OPTIONS = ServerOptions(handshake_timeout=Seconds(10), header_max_size=Size(1000))
TIMEOUT = [LimitHit("server.handshake_timeout", "")]
REQUEST = (
    b"GET /ws?a=b HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"X-Twice: a\r\nx-twice:  b \r\n\r\n"
)


class HttpServer(asyncio.Protocol):
    """Stands in for the HTTP server of uvicorn."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.stream: asyncio.BaseTransport | None = None
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.stream = transport

    def data_received(self, data: bytes) -> None:
        self.received += data


class DetectorHarness:
    """One new connection."""

    def __init__(
        self,
        options: WebSocketOptions = WebSocketOptions(),  # noqa: B008 - it is frozen
        trusted_proxies: Sequence[str] = (),
    ) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.sink = RecordingSink()
        self.state = ServerState()
        self.turns: list[Callable[[], None]] = []
        """What is scheduled for the next turn."""
        self.receiver: RecordingReceiver | None = None
        self.handshake: Handshake
        acceptor = WebSocketAcceptor(
            {"/ws": SingleCodecEndpoint(WireSelector(StubCodec(None), options), self._session_factory)},
            options,
            [],
            lambda: None,
            self.timers,
            self.sink,
            self.turns.append,
            trusted_proxies,
        )
        shortcut = UpgradeDetector(acceptor, HttpServer, OPTIONS, self.timers, self.sink, self.turns.append)
        self.reads = shortcut.reads
        self.stream = FakeStream()
        self.protocol: UpgradeDetectorProtocol = shortcut.protocol(config="configuration", server_state=self.state)
        self.stream.protocol = self.protocol
        self.protocol.connection_made(self.stream)

    def _session_factory(self, request: WebSocketRequest, wire: Wire) -> OpenSession:
        return self._open_session

    def _open_session(self, transport: Transport, handshake: Handshake) -> Receiver:
        self.receiver = RecordingReceiver(transport)
        self.handshake = handshake
        return self.receiver

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()


@in_loop
def test_whole_upgrade_request_is_accepted_without_an_http_server() -> None:
    """Afterwards no timer or reference to the detector remains."""
    harness = DetectorHarness()
    harness.protocol.data_received(REQUEST)
    assert harness.stream.written.startswith(b"HTTP/1.1 101 ")
    assert isinstance(harness.stream.protocol, SingleFrameReader)
    feed(harness.stream.protocol, masked(1, b"hello"))
    assert harness.receiver is not None
    assert harness.receiver.messages == [(b"hello", False)]
    assert (harness.handshake.transport, harness.handshake.path, harness.handshake.query) == ("websocket", "/ws", "a=b")
    assert harness.handshake.header("X-Twice") == "a, b"
    assert harness.handshake.client_address == "192.0.2.1"
    harness.advance(1000)
    assert (harness.sink.events, harness.stream.calls.count("close"), harness.state.connections) == ([], 0, set())


@in_loop
def test_compression_is_negotiated_only_if_it_is_on() -> None:
    """With compression, compressed messages are read. Without it, the offer is ignored and they are violations."""
    offer = REQUEST.replace(b"X-Twice: a", b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
    for on in (True, False):
        harness = DetectorHarness(WebSocketOptions(compression=on))
        harness.protocol.data_received(offer)
        assert (b"\r\nSec-WebSocket-Extensions: permessage-deflate; " in harness.stream.written) is on
        feed(harness.stream.protocol, masked(1, deflate(b"hello", 1), reserved=4))
        assert harness.receiver is not None
        assert harness.receiver.messages == ([(b"hello", False)] if on else [])


@in_loop
def test_frames_after_the_request_are_read() -> None:
    """A client need not wait for the response."""
    harness = DetectorHarness()
    harness.protocol.data_received(REQUEST + masked(1, b"a") + masked(1, b"b")[:3])
    assert isinstance(harness.stream.protocol, FrameReader)
    feed(harness.stream.protocol, masked(1, b"b")[3:])
    assert harness.receiver is not None
    assert [data for data, _ in harness.receiver.messages] == [b"a", b"b"]


@in_loop
def test_refused_request_closes_the_connection() -> None:
    """The acceptor refuses it. Later bytes are ignored."""
    harness = DetectorHarness()
    harness.protocol.data_received(REQUEST.replace(b"/ws", b"/no"))
    harness.protocol.data_received(masked(1, b"a"))
    assert harness.stream.written.startswith(b"HTTP/1.1 404 ")
    assert (harness.stream.calls[-1], harness.sink.events) == ("close", [HandshakeRefused("other", 404, "bad")])


@pytest.mark.parametrize(
    "data",
    [
        REQUEST[:1],
        REQUEST[:-2],
        REQUEST.replace(b"GET", b"POST"),
        REQUEST.replace(b"WebSocket\r", b"h2c\r"),
        REQUEST.replace(b"WebSocket\r", b"h2c, websocket\r"),
        REQUEST.replace(b"keep-alive, Upgrade", b"close"),
        REQUEST.replace(b"\r\n\r\n", b"\r\nCookie: " + b"c" * 1000 + b"\r\n\r\n"),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + REQUEST,
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"POST /api/publish HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\r\n",
    ],
)
def test_other_bytes_go_to_the_http_server(data: bytes) -> None:
    """All bytes, with uvicorn's arguments and the deadline for the head."""

    @in_loop
    def run() -> None:
        harness = DetectorHarness()
        harness.advance(4)
        harness.protocol.data_received(data)
        server = harness.stream.protocol
        assert isinstance(server, HttpServer)
        assert (server.received, bytes(harness.stream.written)) == (data, b"")
        assert cast(object, server.stream) is harness.stream
        due_s = harness.clock.now_s() + 6
        assert server.arguments == {"config": "configuration", "server_state": harness.state, "head_deadline_s": due_s}
        harness.advance(1000)
        assert (harness.sink.events, harness.state.connections) == ([], set())

    run()


@in_loop
def test_address_of_the_client_behind_a_trusted_proxy() -> None:
    """The last forwarded address that is no trusted proxy. Without a trusted proxy, the address of the connection."""
    forwarded = b"X-Forwarded-For: 203.0.113.7, 198.51.100.2\r\nX-Forwarded-For: 192.0.2.9\r\nX-Twice: a"
    for proxies, address in (
        ((), "192.0.2.1"),
        (("127.0.0.1",), "192.0.2.1"),
        (("192.0.2.1",), "192.0.2.9"),
        (("192.0.2.0/24",), "198.51.100.2"),
        (("*",), "203.0.113.7"),
    ):
        harness = DetectorHarness(trusted_proxies=proxies)
        harness.protocol.data_received(REQUEST.replace(b"X-Twice: a", forwarded))
        assert harness.handshake.client_address == address, proxies
    harness = DetectorHarness(trusted_proxies=["192.0.2.1"])
    harness.protocol.data_received(REQUEST)
    assert harness.handshake.client_address == "192.0.2.1"


def ended(end: Callable[[DetectorHarness], object]) -> DetectorHarness:
    """A silent connection after `end`, and after all timeouts."""
    harness = DetectorHarness()
    assert list(harness.state.connections) == [cast(object, harness.protocol)]
    end(harness)
    harness.protocol.connection_lost(None)
    harness.advance(1000)
    assert (harness.state.connections, len(harness.timers)) == (set(), 0)
    return harness


@in_loop
def test_silent_connection_is_closed() -> None:
    """After the handshake timeout, without a response."""
    harness = ended(lambda harness: harness.advance(10))
    assert (harness.stream.calls[-1], bytes(harness.stream.written)) == ("close", b"")
    assert harness.sink.events == TIMEOUT


@in_loop
def test_shutdown_and_loss_cancel_the_timeout() -> None:
    """uvicorn closes connections by `shutdown`; clients disconnect."""
    harness = ended(lambda harness: harness.protocol.shutdown())
    assert (harness.stream.calls[-1], harness.sink.events) == ("close", [])
    assert ended(lambda harness: harness.protocol.connection_lost(None)).sink.events == []


def busy_harness(data: bytes = REQUEST) -> DetectorHarness:
    """A connection whose first bytes come when other connections have used the slice of this turn."""
    harness = DetectorHarness()
    assert not harness.reads.is_over()
    harness.clock.advance(SLICE_S * 2)
    harness.protocol.data_received(data)
    assert harness.stream.written == b""
    return harness


@in_loop
def test_request_waits_for_the_next_turn_if_the_slice_is_over() -> None:
    """Then the request is handled as usual."""
    harness = busy_harness()
    harness.turns.pop(0)()
    assert harness.stream.written.startswith(b"HTTP/1.1 101 ")
    assert isinstance(harness.stream.protocol, SingleFrameReader)
    harness.advance(1000)
    assert (harness.sink.events, harness.state.connections) == ([], set())


@in_loop
def test_bytes_that_come_while_a_request_waits_belong_to_it() -> None:
    """The rest of the request, or frames after it."""
    harness = busy_harness(REQUEST[:20])
    harness.protocol.data_received(REQUEST[20:])
    harness.protocol.data_received(masked(1, b"a"))
    harness.turns.pop(0)()
    assert harness.stream.written.startswith(b"HTTP/1.1 101 ")
    assert harness.receiver is not None
    assert [data for data, _ in harness.receiver.messages] == [b"a"]


@in_loop
def test_peer_that_sends_on_while_its_request_waits_is_not_read() -> None:
    """Beyond the size of a request head, until the request is handled."""
    harness = busy_harness()
    harness.protocol.data_received(bytes(OPTIONS.header_max_size))
    assert harness.stream.calls == ["pause"]
    harness.turns.pop(0)()
    assert harness.stream.calls[1] == "resume"


@in_loop
def test_connection_that_ends_while_its_request_waits_is_not_answered() -> None:
    """Whether the peer has gone, or the server ends it."""
    harness = busy_harness()
    harness.protocol.connection_lost(None)
    harness.turns.pop(0)()
    assert harness.stream.written == b""
    harness = busy_harness()
    harness.protocol.shutdown()
    harness.turns.pop(0)()
    assert harness.stream.written == b""
