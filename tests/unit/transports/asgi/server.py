"""A fake ASGI server for one WebSocket: it can be made to wait or to fail."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.types import Message

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import CONNECTION_CLOSED, DisconnectCode
from beaconfire.base.timers import Timers
from beaconfire.model.handshake import Handshake
from beaconfire.transports.asgi.connection import AsgiWebSocket, ConnectionContext
from beaconfire.transports.asgi.wire import MessageFrame
from beaconfire.transports.port import Transport
from tests.fakes.events import EventRecorder
from tests.fakes.transport import HANDSHAKE

SIZE_LIMIT = 100


class RecordingSession:
    """A receiver that records all calls. The message `bug` raises an exception."""

    def __init__(self) -> None:
        self.received: list[tuple[bytes, bool]] = []
        self.pongs = self.writable = 0
        self.closed: list[int] = []

    def on_data(self, data: bytes, binary: bool) -> None:
        if data == b"bug":
            raise RuntimeError("a bug")
        self.received.append((data, binary))

    def on_control_frame(self, size: int) -> None: ...

    def on_transport_pong(self) -> None:
        self.pongs += 1

    def on_writable(self) -> None:
        self.writable += 1

    def positions(self) -> Mapping[str, tuple[int, str]] | None:
        return {}

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        self.closed.append(code.code)


class FakeServer:
    """The server's half of one accepted WebSocket, and the connection under test."""

    def __init__(self, expects_errors: bool = False) -> None:
        self.sent: list[Message] = []
        self.accepts_messages = asyncio.Event()
        self.accepts_messages.set()
        self.send_error: Exception | None = None
        self.incoming: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.events = EventRecorder(expects_errors)
        self.session = RecordingSession()
        self.connection = AsgiWebSocket(ConnectionContext(SIZE_LIMIT, 10, 5, self.timers, self.events), self.send)
        self.running = asyncio.create_task(self.connection.run(self.open_session, HANDSHAKE, self.receive))

    def open_session(self, transport: Transport, handshake: Handshake) -> RecordingSession:
        return self.session

    async def send(self, message: Message) -> None:
        await self.accepts_messages.wait()
        if self.send_error is not None:
            raise self.send_error
        self.sent.append(message)

    async def receive(self) -> Message:
        message = await self.incoming.get()
        if isinstance(message, Exception):
            raise message
        return message

    def is_writable(self) -> bool:
        return self.connection.writable

    def say(self, text: str) -> None:
        self.incoming.put_nowait({"type": "websocket.receive", "text": text})

    def disconnect(self) -> None:
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1005})

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()


async def settle() -> None:
    """Lets all tasks run until they wait for something."""
    for _ in range(10):
        await asyncio.sleep(0)


def frame(*texts: str) -> MessageFrame:
    return MessageFrame([(text.encode(), False) for text in texts])


def message(text: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": text}
