"""The transport of a session that writes to the body of one HTTP response.

Theory of operation. ASGI's `send` is a coroutine. Our own server says beforehand whether it will suspend, which it does
only if the peer does not read: otherwise it runs without a task. A `send` that may suspend runs in a task, and until
the task is done the stream is not writable. The task of the request waits for the client to disconnect, and uses no
CPU meanwhile.

The head of the response is sent with the first bytes. So a unidirectional client can still be refused by an HTTP
status, and only that stops an `EventSource` from reconnecting for ever. The client's commands come by other requests,
through `receive`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct
from starlette.types import Message, Receive, Send

from beaconfire.base.errors import CONNECTION_CLOSED, DisconnectCode
from beaconfire.base.tasks import SuspendedError, run_in_one_step, start_task
from beaconfire.base.timers import Timer, Timers
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.model.handshake import Handshake
from beaconfire.model.pushes import DisconnectPush
from beaconfire.protocols.port import Frame
from beaconfire.transports.port import OpenSession, Receiver
from beaconfire.transports.request_checks import http_status
from beaconfire.transports.streams.event_ids import event_id
from beaconfire.transports.streams.wires import StreamWire


class StreamTraits(Struct, frozen=True):
    """The behaviour of the streams of one endpoint.

    `name` is the name in metrics. `preamble` is sent before everything else. With `unidirectional` the client sends no
    commands, and with `has_ids` the ids of events contain the client's positions.
    """

    name: str
    preamble: bytes = b""
    unidirectional: bool = False
    has_ids: bool = False


class StreamCloseTimeout(Struct, frozen=True):
    """The time in which a client must read the rest of an ended stream.

    After `timeout_s` seconds the connection is reset, and the limit `<name>.close_timeout` is reported to `events`.
    """

    timeout_s: float
    timers: Timers
    events: EventSink


class StreamConnection(Struct, frozen=True):
    """The request's connection: ASGI's `send`, whether the next `send` runs without suspending, and how to end the
    connection at once, which drops the data that the client has not read."""

    send: Send
    sends_at_once: Callable[[], bool]
    reset: Callable[[], None]


class ResponseStream:
    """The `Transport` of one response."""

    __slots__ = (
        "_close_timeout",
        "_close_timer",
        "_connection",
        "_headers",
        "_in_flight",
        "_is_closed",
        "_is_ending",
        "_readable",
        "_receiver",
        "_started",
        "_traits",
        "_waiting",
        "_wire",
        "secret",
    )

    direct = None

    def __init__(
        self,
        traits: StreamTraits,
        wire: StreamWire,
        connection: StreamConnection,
        headers: list[tuple[bytes, bytes]],
        close_timeout: StreamCloseTimeout,
        secret: str = "",
    ) -> None:
        self.secret = secret
        self._close_timeout = close_timeout
        self._traits = traits
        self._wire = wire
        self._connection = connection
        self._headers = headers
        self._receiver: Receiver | None = None
        self._in_flight: int | None = None
        """Bytes in a suspended `send`; None while no `send` is suspended."""
        self._waiting: list[bytes] = []
        self._started = False
        self._is_ending = False
        self._is_closed = False
        self._readable: asyncio.Event | None = None
        """Set when the session resumes reading; None while the session reads."""
        self._close_timer: Timer | None = None
        """Runs while the client of an ended stream has not read the rest."""

    async def run(
        self, open_session: OpenSession, handshake: Handshake, receive: Receive, message: bytes, binary: bool
    ) -> None:
        """Runs the session, from its first message to the end of the response or of the connection."""
        receiver = self._receiver = open_session(self, handshake)
        try:
            receiver.on_data(message, binary)
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            self._is_closed = True
            self._receiver = None
            if self._close_timer is not None:
                self._close_timer.cancel()
            self.resume_reading()
            receiver.on_closed()

    async def receive(self, data: bytes, binary: bool) -> bool:
        """Passes commands of the client to the session, when the session reads. False if the session has ended."""
        while self._readable is not None:
            await self._readable.wait()
        if self._receiver is None or self._is_ending:
            return False
        self._receiver.on_data(data, binary)
        return True

    # -- Called by the session: Transport ----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._traits.name

    @property
    def writable(self) -> bool:
        return self._in_flight is None and not self._is_closed

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait for the HTTP server. A server buffers up to a few dozen KiB more, which are not counted."""
        return (self._in_flight or 0) + sum(map(len, self._waiting))

    def write(self, frames: Sequence[Frame]) -> None:
        if not self._is_ending:
            data = b"".join(frames)  # type: ignore[arg-type]  # a `StreamWire` makes bytes
            if self._traits.has_ids and self._receiver is not None:
                positions = self._receiver.positions()
                if positions is None:
                    return  # an event without an id would be sent again when the client resumes
                data = event_id(data, positions)
            self._write(data)

    def write_rest(self, data: bytes, sent: int) -> None:
        raise AssertionError("a response stream has no direct socket")

    def ping(self) -> None:
        """HTTP has no pings: sessions on streams send the pings of their protocol."""

    def close(self, code: DisconnectCode, reason: str) -> None:
        """Sends the code as a push, and then ends the response."""
        if self._is_ending:
            return
        self._is_ending = True
        if self._traits.unidirectional and not self._started and not code.reconnect:
            self._send(self._refusal(http_status(code), f"{code.code} {reason}\n".encode()), 0)
        elif code.code == CONNECTION_CLOSED.code:
            self._write(b"")
        else:
            codec = self._wire.codec
            self._write(self._wire.pack([codec.encode_push(DisconnectPush(code.code, reason, code.reconnect))]))
        if self._in_flight is not None:
            self._close_timer = self._close_timeout.timers.after(self._close_timeout.timeout_s, self._on_close_timeout)

    def pause_reading(self) -> None:
        if self._readable is None:
            self._readable = asyncio.Event()

    def resume_reading(self) -> None:
        if self._readable is not None:
            self._readable.set()
            self._readable = None

    def _on_close_timeout(self) -> None:
        self._close_timeout.events.emit(LimitHit(f"{self.name}.close_timeout", ""))
        self._connection.reset()

    # -- Writing to the ASGI server ----------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if self._in_flight is not None:
            self._waiting.append(data)
        else:
            self._send(self._body(data, not self._is_ending), len(data))

    def _send(self, messages: deque[Message], size: int) -> None:
        """Sends messages with `size` bytes of the body: at once, or in a task from the first one that may suspend."""
        connection = self._connection
        try:
            while messages and not self._is_closed and connection.sends_at_once():
                run_in_one_step(connection.send(messages.popleft()))  # type: ignore[arg-type]  # a coroutine, in fact
        except SuspendedError:  # the server broke its word
            raise
        except Exception:  # noqa: BLE001 - servers may raise if the client has disconnected; `receive` reports that as well
            self._is_closed = True
        if messages and not self._is_closed:
            self._in_flight = size
            start_task(self._send_rest(messages)).add_done_callback(self._on_sent)

    async def _send_rest(self, messages: deque[Message]) -> None:
        while messages:
            await self._connection.send(messages.popleft())

    def _body(self, data: bytes, more: bool) -> deque[Message]:
        messages: deque[Message] = deque()
        if not self._started:
            self._started = True
            messages.append({"type": "http.response.start", "status": 200, "headers": self._headers})
            data = self._traits.preamble + data
        messages.append({"type": "http.response.body", "body": data, "more_body": more})
        return messages

    def _refusal(self, status: int, text: bytes) -> deque[Message]:
        self._started = True
        headers = [field for field in self._headers if field[0] != b"content-type"]
        headers.append((b"content-type", b"text/plain; charset=utf-8"))
        return deque(
            (
                {"type": "http.response.start", "status": status, "headers": headers},
                {"type": "http.response.body", "body": text},
            )
        )

    def _on_sent(self, task: asyncio.Task[None]) -> None:
        self._in_flight = None
        if task.cancelled() or task.exception() is not None:
            self._is_closed = True
            return
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._write(b"".join(waiting))
        if self.writable and self._receiver is not None and not self._is_ending:
            self._receiver.on_writable()
