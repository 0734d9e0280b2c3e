"""One session's way to its client: the body of an HTTP response.

Theory of operation. ASGI's `send` is a coroutine, but servers write at once and wait only when the peer takes nothing.
So it is run on the spot, without a task; if it does wait, a task finishes it, and until then the stream is not
writable. The request's own task waits for the client to go away, and costs nothing while it does.

The head goes out with the first bytes, because a client that only listens is better refused with a status: that alone
keeps an `EventSource` from trying again for ever. What a client says comes by other requests, through `receive`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Struct
from starlette.types import Receive, Send

from beaconfire.base.errors import CONNECTION_CLOSED, DisconnectCode
from beaconfire.base.tasks import run_eagerly
from beaconfire.base.timers import Timer, Timers
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.model.pushes import DisconnectPush
from beaconfire.protocols.port import Frame, Wire
from beaconfire.transports.port import OpenSession, Receiver
from beaconfire.transports.request_checks import http_status
from beaconfire.transports.streams.event_ids import event_id


class StreamTraits(Struct, frozen=True):
    """How the streams of one endpoint behave: `name` as in metrics, `preamble` before everything else.

    With `unidirectional` the client has no half of its own, and with `has_ids` its events tell where it is.
    """

    name: str
    preamble: bytes = b""
    unidirectional: bool = False
    has_ids: bool = False


class StreamCloseTimeout(Struct, frozen=True):
    """How the streams of one endpoint end: the client has `timeout_s` seconds to take the rest of its response.

    After that `reset` is called, and the limit `<name>.close_timeout` is reported to `events`.
    """

    timeout_s: float
    timers: Timers
    events: EventSink


class ResponseStream:
    """The `Transport` of one response."""

    __slots__ = (
        "_ending",
        "_headers",
        "_in_flight",
        "_over",
        "_overdue",
        "_readable",
        "_receiver",
        "_reset",
        "_send",
        "_started",
        "_stream_ending",
        "_traits",
        "_waiting",
        "_wire",
        "secret",
    )

    direct = None

    def __init__(
        self,
        traits: StreamTraits,
        wire: Wire,
        send: Send,
        headers: list[tuple[bytes, bytes]],
        ending: StreamCloseTimeout,
        reset: Callable[[], None],
        secret: str = "",
    ) -> None:
        """`reset` ends the request's connection at once, whatever its client has yet to read."""
        self.secret = secret
        self._stream_ending = ending
        self._reset = reset
        self._traits = traits
        self._wire = wire
        self._send = send
        self._headers = headers
        self._receiver: Receiver | None = None
        self._in_flight: int | None = None
        """Bytes in a `send` that waits; None while none does."""
        self._waiting: list[Frame] = []
        self._started = False
        self._ending = False
        self._over = False
        self._readable: asyncio.Event | None = None
        """Set once the session reads on; None while it does."""
        self._overdue: Timer | None = None
        """Of the close timeout, while the client of an ended stream has yet to read."""

    async def run(self, open_session: OpenSession, receive: Receive, opening: bytes, binary: bool) -> None:
        """The session's whole life, from its first commands to the end of the response or of the connection."""
        receiver = self._receiver = open_session(self)
        try:
            receiver.on_data(opening, binary)
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            self._over = True
            self._receiver = None
            if self._overdue is not None:
                self._overdue.cancel()
            self.resume_reading()
            receiver.on_closed()

    async def receive(self, data: bytes, binary: bool) -> bool:
        """Commands of the client, once the session takes any. False if it has ended."""
        while self._readable is not None:
            await self._readable.wait()
        if self._receiver is None or self._ending:
            return False
        self._receiver.on_data(data, binary)
        return True

    # -- The session's side: Transport -------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._traits.name

    @property
    def writable(self) -> bool:
        return self._in_flight is None and not self._over

    @property
    def buffered_bytes(self) -> int:
        """Without what the HTTP server has taken and the kernel has not: servers keep a few dozen KiB."""
        return (self._in_flight or 0) + sum(map(len, self._waiting))

    def write(self, data: Frame) -> None:
        if not self._ending:
            if self._traits.has_ids and self._receiver is not None:
                positions = self._receiver.positions()
                if positions is None:
                    return  # without an id it would be sent again when the listener resumes
                data = event_id(data, positions)
            self._write(data)

    def write_rest(self, data: Frame, sent: int) -> None:
        raise AssertionError("there is no socket to write to past the stream")

    def ping(self) -> None:
        """HTTP has none: pings are messages of the protocol here."""

    def close(self, code: DisconnectCode, reason: str) -> None:
        """The code travels as a push, and then the response ends."""
        if self._ending:
            return
        self._ending = True
        if self._traits.unidirectional and not self._started and not code.reconnect:
            self._write_message(self._refuse(http_status(code), f"{code.code} {reason}\n".encode()), 0)
        elif code.code == CONNECTION_CLOSED.code:
            self._write(b"")
        else:
            codec = self._wire.codec
            self._write(self._wire.pack([codec.encode_push(DisconnectPush(code.code, reason, code.reconnect))]))
        if self._in_flight is not None:
            self._overdue = self._stream_ending.timers.after(self._stream_ending.timeout_s, self._cut)

    def pause_reading(self) -> None:
        if self._readable is None:
            self._readable = asyncio.Event()

    def resume_reading(self) -> None:
        if self._readable is not None:
            self._readable.set()
            self._readable = None

    def _cut(self) -> None:
        self._stream_ending.events.emit(LimitHit(f"{self.name}.close_timeout", ""))
        self._reset()

    # -- The server's side -------------------------------------------------------------------------------------------

    def _write(self, data: Frame) -> None:
        if self._in_flight is not None:
            self._waiting.append(data)
        else:
            self._write_message(self._deliver(data, not self._ending), len(data))

    def _write_message(self, sending: Coroutine[Any, Any, None], size: int) -> None:
        """Runs it, at once if the server takes it."""
        if self._over:
            sending.close()
            return
        try:
            task = run_eagerly(sending)
        except Exception:  # noqa: BLE001 - a server may say so that the client has gone; `receive` says it as well
            self._over = True
            return
        if task is not None:
            self._in_flight = size
            task.add_done_callback(self._on_sent)

    async def _deliver(self, data: Frame, more: bool) -> None:
        if not self._started:
            self._started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
            data = self._traits.preamble + data
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _refuse(self, status: int, text: bytes) -> None:
        self._started = True
        headers = [field for field in self._headers if field[0] != b"content-type"]
        headers.append((b"content-type", b"text/plain; charset=utf-8"))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": text})

    def _on_sent(self, task: asyncio.Task[None]) -> None:
        self._in_flight = None
        if task.cancelled() or task.exception() is not None:
            self._over = True
            return
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._write(b"".join(waiting))
        if self.writable and self._receiver is not None and not self._ending:
            self._receiver.on_writable()
