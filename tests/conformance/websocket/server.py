"""A real server for conformance tests: uvicorn in a thread, with the acceptor and receivers that echo messages."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import Future
from typing import Any, TypeVar

import uvicorn

from beaconfire.base.clock import SystemClock
from beaconfire.base.errors import (
    CONNECTION_CLOSED,
    CONNECTION_TOO_MANY_REQUESTS,
    SHUTDOWN,
    DisconnectCode,
)
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds, Size
from beaconfire.model.events import Event
from beaconfire.model.handshake import Handshake
from beaconfire.protocols.plain.codec import PlainCodec
from beaconfire.protocols.port import Frame, Payload, Wire
from beaconfire.transports.http.limits import HttpLimits
from beaconfire.transports.options import ServerOptions, WebSocketOptions
from beaconfire.transports.port import ErrorResponse, Transport
from beaconfire.transports.websocket import UpgradeDetector, WebSocketAcceptor, WireSelector
from beaconfire.transports.websocket.framing import BINARY, TEXT, frame_header
from beaconfire.transports.websocket_endpoints import NegotiatedHandshake
from beaconfire.transports.websocket_request import WebSocketRequest

T = TypeVar("T")

MESSAGE_SIZE_LIMIT = 1_000_000
CONTROL_FRAMES_MAX = 5000
DEADLINE_S = 10.0


class Echo:
    """Echoes messages. The message `close` closes the connection, `flood` sends more than the buffers hold."""

    def __init__(self, server: EchoServer, transport: Transport) -> None:
        self._server = server
        self.transport = transport
        self._control_frames = 0
        server.live.add(self)

    def on_data(self, data: bytes, binary: bool) -> None:
        if data == b"close":
            self.transport.close(SHUTDOWN, "shutdown")
        elif data == b"flood":
            self.transport.write([message(b"x" * 1_000_000, True)] * 20)
        elif data == b"ping":
            self.transport.ping()
        else:
            self.transport.write([self.pack(data, binary)])

    def pack(self, data: bytes, binary: bool) -> Frame:
        return message(data, binary)

    def on_control_frame(self, size: int) -> None:
        self._control_frames += 1
        if self._control_frames > CONTROL_FRAMES_MAX:
            self.transport.close(CONNECTION_TOO_MANY_REQUESTS, "too many requests")

    def on_transport_pong(self) -> None:
        self.transport.write([message(b"pong received", False)])

    def on_writable(self) -> None:
        self._server.writable.set()

    def positions(self) -> Mapping[str, tuple[int, str]]:
        return {}

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        self._server.live.discard(self)


class CompressedEcho(Echo):
    """As `Echo`, on a connection with compression."""

    def __init__(self, server: EchoServer, transport: Transport, wire: Wire) -> None:
        super().__init__(server, transport)
        self._wire = wire

    def pack(self, data: bytes, binary: bool) -> Frame:
        return self._wire.pack([Payload(data, binary)])


class EchoServer:
    """One uvicorn with all endpoints that the tests need, on an event loop in its own thread."""

    def __init__(
        self,
        loop_factory: Callable[[], asyncio.AbstractEventLoop],
        tls: ssl.SSLContext | None = None,
        write_timeout_s: float = 1,
        close_timeout_s: float = 0.5,
    ) -> None:
        self.live: set[Echo] = set()
        self.events: list[Event] = []
        self.writable = threading.Event()
        self.error_response: ErrorResponse | None = None
        self.timers = Timers(SystemClock())
        self.port = 0
        options = WebSocketOptions(
            message_size_limit=Size(MESSAGE_SIZE_LIMIT),
            write_timeout=Seconds(write_timeout_s),
            close_timeout=Seconds(close_timeout_s),
        )
        self._acceptor = WebSocketAcceptor(
            {
                "/ws": PlainEndpoint(self),
                "/deflate": CompressingEndpoint(self),
                "/subprotocol": SubprotocolEndpoint(self),
                "/broken": FailingEndpoint(),
            },
            options,
            ["https://good.example"],
            lambda: self.error_response,
            self.timers,
            self,
            self._call_soon,
        )
        limits = ServerOptions(handshake_timeout=Seconds(0.5), header_max_size=Size(8192))
        guard = HttpLimits(limits, self.timers, self)
        self._shortcut = UpgradeDetector(self._acceptor, guard.protocol, limits, self.timers, self, self._call_soon)
        self._tls = tls
        self._loop = loop_factory()
        self._ready = threading.Event()
        self._stopping: asyncio.Event
        self._thread = threading.Thread(target=self._run, name="echo server")

    def _call_soon(self, call: Callable[[], None]) -> object:
        return self._loop.call_soon(call)

    def __enter__(self) -> EchoServer:
        self._thread.start()
        assert self._ready.wait(DEADLINE_S), "the server did not start"
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the server did not stop"

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def call(self, function: Callable[[], T]) -> T:
        """Runs a function on the server's event loop, which owns all of its state."""

        async def run() -> T:
            return function()

        outcome: Future[T] = asyncio.run_coroutine_threadsafe(run(), self._loop)
        return outcome.result(DEADLINE_S)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Waits for a condition of the server's state, evaluated on the server's loop. Fails at the deadline."""

        async def watch() -> None:
            async with asyncio.timeout(DEADLINE_S):
                while not condition():  # noqa: ASYNC110 - a condition of any state has no event
                    await asyncio.sleep(0.005)

        asyncio.run_coroutine_threadsafe(watch(), self._loop).result(2 * DEADLINE_S)

    def open_session(self, transport: Transport, handshake: Handshake) -> Echo:
        return Echo(self, transport)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        config = uvicorn.Config(
            not_found,
            ws=self._acceptor.upgrade,  # type: ignore[arg-type]  # uvicorn only ever calls it
            http=self._shortcut.protocol,  # type: ignore[arg-type]  # likewise
            port=0,
            lifespan="off",
            log_config=None,
        )
        config.load()
        config.ssl = self._tls
        server = uvicorn.Server(config)
        serving = self._loop.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        self.port = server.servers[0].sockets[0].getsockname()[1]
        self._ready.set()
        while not self._stopping.is_set():
            self.timers.run_due()
            await asyncio.sleep(0.01)
        for echo in list(self.live):
            echo.transport.close(SHUTDOWN, "shutdown")
        server.should_exit = server.force_exit = True
        await serving


class PlainEndpoint:
    """An endpoint that accepts every request."""

    def __init__(self, server: EchoServer) -> None:
        self._server = server

    def negotiate(self, request: WebSocketRequest) -> NegotiatedHandshake:
        return NegotiatedHandshake(self._server.open_session)


class CompressingEndpoint:
    """An endpoint with compression. It compresses echoed messages of 128 bytes and more."""

    def __init__(self, server: EchoServer) -> None:
        self._server = server
        self._wires = WireSelector(PlainCodec(None), WebSocketOptions(compression=True))

    def negotiate(self, request: WebSocketRequest) -> NegotiatedHandshake:
        wire, extension = self._wires.select(request)
        if not extension:
            return NegotiatedHandshake(self._server.open_session)
        return NegotiatedHandshake(
            lambda transport, handshake: CompressedEcho(self._server, transport, wire), extension=extension
        )


class SubprotocolEndpoint:
    """An endpoint with one subprotocol, which refuses requests that do not offer it."""

    def __init__(self, server: EchoServer) -> None:
        self._server = server

    def negotiate(self, request: WebSocketRequest) -> NegotiatedHandshake | ErrorResponse:
        if "known" in request.subprotocols:
            return NegotiatedHandshake(self._server.open_session, "known")
        return ErrorResponse(400, "bad", "unknown subprotocol")


class FailingEndpoint:
    """An endpoint that raises an exception."""

    def negotiate(self, request: WebSocketRequest) -> NegotiatedHandshake:
        raise RuntimeError("a bug")


def message(data: bytes, binary: bool) -> bytes:
    return frame_header(BINARY if binary else TEXT, len(data)) + data


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """The application for all requests that are not WebSockets. It reads the body first."""
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
