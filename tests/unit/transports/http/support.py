"""An HTTP connection without a network: a fake stream, an application that responds, and a manual clock."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from beaconfire.base.clock import ManualClock
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds, Size
from beaconfire.model.events import Event
from beaconfire.transports.http.limits import HttpLimits
from beaconfire.transports.options import ServerOptions

OPTIONS = ServerOptions(handshake_timeout=Seconds(10), keep_alive_timeout=Seconds(60), header_max_size=Size(1000))


class FakeHttpStream(asyncio.Transport):
    """Records all calls. After a close it ignores writes, as real transports do."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.aborted = False
        self.waiting = 0
        self.options: list[tuple[object, ...]] = []
        self.protocol: Any = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "socket" else default

    def fileno(self) -> int:
        return 1000

    def setsockopt(self, *option: object) -> None:
        if option[0] != socket.IPPROTO_TCP:
            self.options.append(option)

    def getpeername(self) -> tuple[str, int]:
        return "127.0.0.1", 1

    getsockname = getpeername

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self.closed:
            self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def get_write_buffer_size(self) -> int:
        return self.waiting

    @property
    def was_reset(self) -> bool:
        return self.aborted and self.options == [(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))]

    def is_closing(self) -> bool:
        return self.closed

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self.protocol
        return protocol

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class FakeWebSocketProtocol(asyncio.Protocol):
    """Stands in for the WebSocket protocol."""

    def __init__(self, **uvicorn: object) -> None:
        self.received: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        self.received.append(data)


class HttpHarness:
    """One connection to an application that responds to every request after its body."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.events: list[Event] = []
        self.requests = 0
        self.scope: MutableMapping[str, Any] = {}
        config = uvicorn.Config(
            self._application,
            ws=FakeWebSocketProtocol,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            timeout_keep_alive=3600,
        )
        config.load()
        guard = HttpLimits(OPTIONS, self.timers, self)
        self.stream = FakeHttpStream()
        self.protocol = guard.protocol(config=config, server_state=ServerState(), app_state={})
        self.stream.protocol = self.protocol
        self.protocol.connection_made(self.stream)

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()

    async def receive(self, data: bytes) -> None:
        """Passes one read to the connection, and waits until it is handled."""
        self.protocol.data_received(data)
        for _ in range(10):
            await asyncio.sleep(0)

    async def _application(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        self.requests += 1
        self.scope = scope
        if scope["path"] != "/at-once":
            while (await receive()).get("more_body"):
                pass
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def scenario(run: Callable[[HttpHarness], Awaitable[None]]) -> Callable[[], None]:
    """Runs a test inside an event loop."""

    def test() -> None:
        async def inside() -> None:
            harness = HttpHarness()
            await run(harness)
            harness.protocol._unset_keepalive_if_required()

        asyncio.run(inside())

    test.__name__, test.__doc__ = run.__name__, run.__doc__
    return test
