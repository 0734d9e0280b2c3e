"""One WebSocket of an ASGI server: the `Transport` that its session uses.

Theory of operation. ASGI's `send` is a coroutine, and fan-out must not wait for it. So `write` only queues the messages
and starts a task, which sends what is queued and ends. While this task is suspended the connection is not writable, and
the session's outbox holds further frames. An idle connection has no task of its own. The task of the request waits in
`receive`, passes messages to the session, and ends when the server reports the disconnect.

ASGI has neither pings nor a way to reset a connection. A session whose dead peer would be found by pings of the
transport relies on the pings of the ASGI server. A peer that does not read is given up by returning from the
application, after which the server closes the connection.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Sequence
from typing import Final, cast

from msgspec import Struct
from starlette.types import Message, Receive, Send

from beaconfire.base.errors import CONNECTION_CLOSED, WRITE_ERROR, DisconnectCode
from beaconfire.base.tasks import start_task
from beaconfire.base.timers import Timer, Timers
from beaconfire.model.events import EventSink, InternalError, LimitHit
from beaconfire.model.handshake import Handshake
from beaconfire.protocols.port import Frame
from beaconfire.transports.asgi.wire import MessageFrame
from beaconfire.transports.port import OpenSession, Receiver
from beaconfire.transports.websocket_messages import INTERNAL_ERROR, MESSAGE_TOO_BIG, shorten_reason, too_big

NORMAL_CLOSURE: Final = 1000
"""Sent for CONNECTION_CLOSED, where our own WebSocket connections close the socket without a close frame."""


class ConnectionContext(Struct, frozen=True):
    """The settings and services that all connections share. Sizes are in bytes."""

    message_size_limit: int
    write_timeout_s: float
    close_timeout_s: float
    timers: Timers
    events: EventSink


class AsgiWebSocket:
    """The `Transport` of one accepted WebSocket. It is open, then closing, and at last lost."""

    __slots__ = (
        "_close_timer",
        "_context",
        "_is_lost",
        "_is_open",
        "_lifetime",
        "_queue",
        "_readable",
        "_receiver",
        "_send",
        "_sender",
        "_sent",
        "_sent_at_check",
        "_write_timer",
        "buffered_bytes",
        "writable",
    )

    name = "websocket"
    secret = ""
    direct = None

    def __init__(self, context: ConnectionContext, send: Send) -> None:
        self._context = context
        self._send = send
        self._receiver: Receiver | None = None
        self._is_open = True
        self._is_lost = False
        self._lifetime: asyncio.Timeout | None = None
        """Ends `run` early. It sets no timer of the event loop."""
        self._readable: asyncio.Event | None = None
        """Set when the session resumes reading; None while the session reads."""
        self._queue: deque[tuple[Message, int]] = deque()
        """Messages to send, each with its size in bytes. The first one stays here while it is being sent."""
        self._sender: asyncio.Task[None] | None = None
        """The task that sends the queue; None while nothing waits."""
        self._sent = self._sent_at_check = 0
        """How many messages the server has taken: until now, and at the last check of the write timeout."""
        self._write_timer: Timer | None = None
        self._close_timer: Timer | None = None
        self.writable = True
        self.buffered_bytes = 0
        """Bytes that wait for the server. A server buffers up to about 64 KiB more, which are not counted."""

    async def run(self, open_session: OpenSession, handshake: Handshake, receive: Receive) -> None:
        """Opens the session, and returns after the end of the connection. The WebSocket must be accepted."""
        try:
            async with asyncio.timeout(None) as self._lifetime:
                try:
                    self._receiver = open_session(self, handshake)
                except Exception:  # noqa: BLE001 - the server must not see an exception of the session
                    self._on_internal_error()
                await self._receive_messages(receive)
        except TimeoutError:
            pass  # `_give_up` ends the lifetime
        finally:
            self._on_lost()

    async def _receive_messages(self, receive: Receive) -> None:
        while True:
            while self._readable is not None:
                await self._readable.wait()
            try:
                message = await receive()
            except Exception:  # noqa: BLE001 - some servers raise after the end of the connection
                return
            if message["type"] == "websocket.disconnect":
                return
            if self._is_open and self._receiver is not None:
                self._pass_on(self._receiver, message)

    def _pass_on(self, receiver: Receiver, message: Message) -> None:
        """Passes one message to the session, if it is not too large."""
        try:
            text = message.get("text")
            data = message["bytes"] if text is None else text.encode()
            limit = self._context.message_size_limit
            if len(data) > limit:
                self._context.events.emit(LimitHit("websocket.message_size_limit", ""))
                self._close(MESSAGE_TOO_BIG, too_big(limit))
            else:
                receiver.on_data(data, text is None)
        except Exception:  # noqa: BLE001 - as in `run`
            self._on_internal_error()

    # -- Called by the session: Transport ----------------------------------------------------------------------------

    def write(self, frames: Sequence[Frame]) -> None:
        if self._is_open:
            for frame in cast(Sequence[MessageFrame], frames):  # `MessageWire` makes them
                for data in frame.messages:
                    kind = "text" if isinstance(data, str) else "bytes"
                    self._queue.append(({"type": "websocket.send", kind: data}, len(data)))
                    self.buffered_bytes += len(data)
            self._start_sending()

    def write_rest(self, data: bytes, sent: int) -> None:
        raise AssertionError("a WebSocket of an ASGI server has no direct socket")

    def ping(self) -> None:
        """ASGI has no pings. The server's own pings find a dead peer, so the session need not wait for a pong."""
        if self._receiver is not None:
            self._receiver.on_transport_pong()

    def close(self, code: DisconnectCode, reason: str) -> None:
        self._close(NORMAL_CLOSURE if code.code == CONNECTION_CLOSED.code else code.code, reason)

    def pause_reading(self) -> None:
        if self._is_open and self._readable is None:
            self._readable = asyncio.Event()

    def resume_reading(self) -> None:
        if self._readable is not None:
            self._readable.set()
            self._readable = None

    # -- Sending -----------------------------------------------------------------------------------------------------

    def _start_sending(self) -> None:
        if self._sender is not None:
            return
        sender = start_task(self._send_queue())
        if not sender.done():
            self._sender = sender
            self.writable = False
            if self._write_timer is None and self._is_open:
                self._set_write_timer()

    async def _send_queue(self) -> None:
        """Sends what is queued. `_sender` is None as long as this runs within `_start_sending`."""
        queue = self._queue
        try:
            while queue:
                message, size = queue[0]
                await self._send(message)
                queue.popleft()
                self.buffered_bytes -= size
                self._sent += 1
        except Exception:  # noqa: BLE001 - servers may raise if the client has disconnected; `receive` reports that as well
            self._give_up()
            return
        if self._sender is not None:
            self._sender = None
            self.writable = self._is_open
            if self._is_open and self._receiver is not None:
                try:
                    self._receiver.on_writable()
                except Exception:  # noqa: BLE001 - as in `run`
                    self._on_internal_error()

    def _set_write_timer(self) -> None:
        self._sent_at_check = self._sent
        context = self._context
        self._write_timer = context.timers.after(context.write_timeout_s, self._check_progress)

    def _check_progress(self) -> None:
        """Gives the connection up if the server has taken no message for the write timeout.

        The timer is not cancelled when a congestion ends: making one for each congestion would cost more than this
        check.
        """
        self._write_timer = None
        if self.writable or not self._is_open:
            return
        if self._sent != self._sent_at_check:
            self._set_write_timer()
            return
        self._context.events.emit(LimitHit("websocket.write_timeout", ""))
        receiver, self._receiver = self._receiver, None
        self._give_up()
        if receiver is not None:
            receiver.on_closed(WRITE_ERROR)

    # -- Closing -----------------------------------------------------------------------------------------------------

    def _close(self, code: int, reason: str) -> None:
        """Sends a close frame after what is queued, and waits for the end of the connection. Idempotent."""
        if not self._is_open:
            return
        self._is_open = self.writable = False
        text = shorten_reason(reason).decode()
        self._queue.append(({"type": "websocket.close", "code": code, "reason": text}, 0))
        self._start_sending()
        self._close_timer = self._context.timers.after(self._context.close_timeout_s, self._on_close_timeout)
        self.resume_reading()

    def _on_close_timeout(self) -> None:
        self._context.events.emit(LimitHit("websocket.close_timeout", ""))
        self._give_up()

    def _on_internal_error(self) -> None:
        """Reports the exception that is being handled, and closes the connection with 1011."""
        self._context.events.emit(InternalError("websocket", traceback.format_exc()))
        self._close(INTERNAL_ERROR, "internal server error")

    def _give_up(self) -> None:
        """Ends `run`, whatever the peer does. The server closes the connection afterwards."""
        self._is_open = self.writable = False
        lifetime = self._lifetime
        if lifetime is not None and not self._is_lost and not lifetime.expired():
            lifetime.reschedule(0)

    def _on_lost(self) -> None:
        self._is_lost = True
        self._is_open = self.writable = False
        for timer in (self._write_timer, self._close_timer):
            if timer is not None:
                timer.cancel()
        if self._sender is not None:
            self._sender.cancel()
            self._sender = None
        self._queue.clear()
        self.buffered_bytes = 0
        self.resume_reading()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.on_closed()
