"""One WebSocket connection: its phases, its reader, and the `Transport` that its session uses.

`FrameHandler` receives and `Sender` sends; this class opens and closes. A connection passes through these phases in
this order, and may skip some:

- OPEN: messages are delivered, frames are sent.
- CLOSING: our close frame is sent; the connection waits for the peer's close frame.
- DISCARDING: the peer violated the protocol. Further bytes from the peer are read and dropped: closing a socket with
  unread bytes would reset the connection, and the peer might not get our close frame.
- ENDING: the socket is being flushed and closed.
- LOST: the socket is closed, and the receiver has been informed.

From CLOSING on, a timer resets the connection after the close timeout, in every case.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Sequence

from picows import WSTransport

from beaconfire.base.errors import CONNECTION_CLOSED, WRITE_ERROR, DisconnectCode
from beaconfire.model.events import InternalError, LimitHit
from beaconfire.model.handshake import Handshake
from beaconfire.protocols.port import Frame
from beaconfire.transports.port import OpenSession
from beaconfire.transports.reset import abandon_after, reset
from beaconfire.transports.websocket.closing import ProtocolViolation, close_payload
from beaconfire.transports.websocket.deflate import compressed_size_limit
from beaconfire.transports.websocket.frame_handler import CLOSING, DISCARDING, ENDING, LOST, OPEN, FrameHandler
from beaconfire.transports.websocket.frame_reader import FrameReader, feed
from beaconfire.transports.websocket.framing import CLOSE, PING, PONG, control_frame
from beaconfire.transports.websocket.null_receiver import NULL_RECEIVER
from beaconfire.transports.websocket.sender import ConnectionContext
from beaconfire.transports.websocket.single_frame_reader import CompressedSingleFrameReader, SingleFrameReader
from beaconfire.transports.websocket_messages import INTERNAL_ERROR, MESSAGE_TOO_BIG, too_big

DISCARDED_BYTES_MAX = 16 * 1024 * 1024
"""How many bytes of a peer that violated the protocol are read and dropped, until the peer sees our close frame."""

_EMPTY_PING = control_frame(PING, b"")


class WebSocketConnection(FrameHandler):
    """The `Transport` of one WebSocket."""

    __slots__ = ("_discarded_bytes", "_reading")

    name = "websocket"
    secret = ""

    def __init__(self, context: ConnectionContext, stream: asyncio.Transport, inflates: bool = False) -> None:
        """`inflates` says that the peer may send compressed messages."""
        super().__init__(context, stream, inflates)
        self._reading = True
        self._discarded_bytes = 0

    def begin(self, response: bytes, open_session: OpenSession, handshake: Handshake) -> None:
        """Sends the response to the handshake and opens the session. Called once, before any frame is read."""
        if not self.writable:
            self.pause_writing()  # an earlier response is unread, and only the previous protocol was paused
        self._send(response)
        try:
            self._receiver = open_session(self, handshake)
        except Exception:  # noqa: BLE001 - the event loop must not see an exception of the session
            self._on_internal_error()

    @property
    def is_open(self) -> bool:
        return self._phase == OPEN

    @property
    def message_size_limit(self) -> int:
        return self._context.message_size_limit

    @property
    def read_buffer(self) -> memoryview:
        return self._context.read_buffer

    @property
    def discard_buffer(self) -> memoryview:
        return self._context.discard_buffer

    # -- Called by the session: Transport ----------------------------------------------------------------------------

    @property
    def buffered_bytes(self) -> int:
        """Under TLS this excludes encrypted bytes: at most one write is missing, and later writes are counted."""
        return self._stream.get_write_buffer_size() if self._phase != LOST else 0

    def write(self, frames: Sequence[Frame]) -> None:
        if self._phase == OPEN:
            self._send(b"".join(frames))  # type: ignore[arg-type]  # our wires make bytes; a single frame is not copied

    def write_rest(self, data: bytes, sent: int) -> None:
        if self._phase == OPEN:
            self._send_later(memoryview(data)[sent:])

    def ping(self) -> None:
        if self._phase == OPEN:
            self._send(_EMPTY_PING)

    def close(self, code: DisconnectCode, reason: str) -> None:
        """Code 3000 ends the connection without a close frame. Other codes wait for the peer's close frame."""
        if self._phase != OPEN:
            return
        if code.code == CONNECTION_CLOSED.code:
            self._close_stream()
            return
        self._enter(CLOSING)
        self._send(control_frame(CLOSE, close_payload(code.code, reason)))
        self._start_close_timer()
        self._resume_stream_reading()

    def pause_reading(self) -> None:
        if self._phase == OPEN and self._reading:
            self._reading = False
            self._stream.pause_reading()

    def resume_reading(self) -> None:
        if self._phase == OPEN:
            self._resume_stream_reading()

    # -- Called by the readers ---------------------------------------------------------------------------------------

    def single_frame_reader(self) -> SingleFrameReader:
        """A new protocol for a connection whose client has sent no other input than whole small messages."""
        return CompressedSingleFrameReader(self) if self._inflates else SingleFrameReader(self)

    def new_reader(self) -> FrameReader:
        """A new protocol that reads all kinds of frames."""
        limit = self._context.message_size_limit
        return FrameReader(self, compressed_size_limit(limit) if self._inflates else limit, self._context.log)

    def read_frames(self, data: bytes) -> None:
        """Installs a reader for all kinds of frames. `data` are the first bytes for it."""
        reader = self.new_reader()
        self._stream.set_protocol(reader)
        feed(reader, data)

    def renew_reader(self) -> None:
        """Installs a new reader with a small buffer. The old reader must hold no unread bytes."""
        self._stream.set_protocol(self.new_reader())

    @property
    def discards(self) -> bool:
        """Whether further bytes from the peer are dropped."""
        return self._phase >= DISCARDING

    def on_discarded(self, count: int) -> None:
        self._discarded_bytes += count
        if self._discarded_bytes > DISCARDED_BYTES_MAX:
            self._reset_stream()

    def on_unreadable(self, code: int, reason: str) -> None:
        """The reader cannot parse the bytes after the last frame."""
        if self._phase == OPEN:
            limit = self._context.message_size_limit
            self._fail(ProtocolViolation(code, too_big(limit) if code == MESSAGE_TOO_BIG else reason))
        elif self._phase == CLOSING:
            self._close_stream()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.on_lost()

    def on_lost(self) -> None:
        self._enter(LOST)
        self._release_socket()
        self._fragmented = None
        receiver, self._receiver = self._receiver, NULL_RECEIVER
        self._context.endings.call(receiver.on_closed)

    # -- Called by the sender ----------------------------------------------------------------------------------------

    def _on_writable(self) -> None:
        pong, self._pending_pong = self._pending_pong, None
        if pong is not None:
            self._send(control_frame(PONG, pong))
        if self.writable:
            self._receiver.on_writable()

    def _on_write_timeout(self) -> None:
        self._reset_stream()
        receiver, self._receiver = self._receiver, NULL_RECEIVER
        receiver.on_closed(WRITE_ERROR)

    # -- Closing -----------------------------------------------------------------------------------------------------

    def _enter(self, phase: int) -> None:
        self._phase = phase
        self.direct = None  # fan-out writes directly only to an open connection

    def _resume_stream_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._stream.resume_reading()

    def _fail(self, violation: ProtocolViolation) -> None:
        """Sends a close frame with the violation and ends the connection."""
        if violation.code == MESSAGE_TOO_BIG:
            self._context.events.emit(LimitHit("websocket.message_size_limit", ""))
        self._enter(DISCARDING)
        self._fragmented = None
        self._send(control_frame(CLOSE, close_payload(violation.code, violation.reason)))
        self._start_close_timer()
        self._resume_stream_reading()
        if self._stream.can_write_eof():
            self._stream.write_eof()
        else:
            self._close_stream()  # TLS reads and drops further bytes during its own closing handshake

    def _on_internal_error(self) -> None:
        """Reports the exception that is being handled, and closes the connection with 1011."""
        self._context.events.emit(InternalError("websocket", traceback.format_exc()))
        if self._phase == OPEN:
            self._fail(ProtocolViolation(INTERNAL_ERROR, "internal server error"))

    def _close_stream(self) -> None:
        """Closes the socket after all that was written is flushed, or after the close timeout.

        The kernel delivers the bytes that it has taken by then, unless the peer takes no data for that time.
        """
        if self._phase < CLOSING:
            self._start_close_timer()
        self._enter(ENDING)
        abandon_after(self._stream, self._context.close_timeout_s)
        self._stream.close()

    def _start_close_timer(self) -> None:
        self._cancel_timer()
        self._context.closing.add(self)
        self._timer = self._context.timers.after(self._context.close_timeout_s, self._on_close_timeout)

    def _on_close_timeout(self) -> None:
        """The peer has not sent its close frame or not taken the rest in time."""
        self._context.events.emit(LimitHit("websocket.close_timeout", ""))
        self._reset_stream()

    def _reset_stream(self) -> None:
        """Ends the connection without waiting for the peer, and drops the bytes that the peer has not taken."""
        self._cancel_timer()
        self._enter(ENDING)
        reset(self._stream)
