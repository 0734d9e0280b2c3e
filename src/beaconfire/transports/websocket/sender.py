"""The sending half of a WebSocket connection: writes to the socket, and detects a peer that does not read.

While the transport's own buffer is empty, writes go directly to the socket, which saves a layer for every delivery. The
buffer's high-water mark is zero, so `writable` says exactly whether the buffer is empty, and bytes are never reordered.
After the connection is lost or given to the transport for closing, nothing is written to the socket: another connection
may have its file descriptor by then.
"""

from __future__ import annotations

import asyncio
import socket

from msgspec import Struct, field
from picows import WSListener

from beaconfire.base.loop import PacedCalls
from beaconfire.base.timers import Timer, Timers
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.transports.reset import reset
from beaconfire.transports.websocket.frame_reader import DISCARD_BUFFER_BYTES
from beaconfire.transports.websocket.picows_log import PicowsLog
from beaconfire.transports.websocket.single_frame_reader import READ_BUFFER_BYTES


class ConnectionContext(Struct, frozen=True):
    """The settings and services that all connections share. Sizes are in bytes.

    Ending a session takes some 20 µs, and a network that fails ends thousands in one turn, so `endings` paces them.
    `closing` contains the connections that are being closed. The two buffers are those of `SingleFrameReader` and of
    `FrameReader`: all connections of a context belong to one event loop, which reads them one after the other.
    """

    message_size_limit: int
    write_timeout_s: float
    close_timeout_s: float
    timers: Timers
    events: EventSink
    log: PicowsLog
    endings: PacedCalls
    closing: set[Sender] = field(default_factory=set)
    read_buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(READ_BUFFER_BYTES)))
    discard_buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(DISCARD_BUFFER_BYTES)))


class Sender(WSListener):
    """A base class of the connection, not a part of it: fan-out reads `writable` and `direct` for every delivery."""

    __slots__ = (
        "_context",
        "_progress_at_s",
        "_socket",
        "_stream",
        "_taken_bytes",
        "_timer",
        "_written_bytes",
        "direct",
        "writable",
    )

    def __init__(self, context: ConnectionContext, stream: asyncio.Transport) -> None:
        self._context = context
        self._stream = stream
        secure = stream.get_extra_info("ssl_object") is not None
        # A TLS transport pauses at its high-water mark, not above it. With a mark of zero it would pause for ever.
        stream.set_write_buffer_limits(high=1 if secure else 0, low=0)
        self._socket = None if secure else _sending_socket(stream)
        # At this point the buffer of a TLS transport contains data of the TLS handshake, which is no congestion.
        self.writable = secure or stream.get_write_buffer_size() == 0
        self.direct = self._socket if self.writable else None
        self._timer: Timer | None = None
        """The timer of the write timeout while the connection is open, and of the close timeout afterwards."""
        self._written_bytes = 0
        """Bytes written to the transport."""
        self._taken_bytes = 0
        """Bytes of them that the kernel had taken at the last check."""
        self._progress_at_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the session may still write."""
        raise NotImplementedError

    def _on_writable(self) -> None:
        """The transport's buffer is empty again."""
        raise NotImplementedError

    def _on_write_timeout(self) -> None:
        """The peer has taken no data for the write timeout."""
        raise NotImplementedError

    def _send(self, data: bytes) -> None:
        """Sends bytes to the kernel. The transport gets the bytes that the kernel does not take."""
        if self.writable and self._socket is not None:
            try:
                sent = self._socket.send(data)
            except OSError:
                sent = 0  # full or broken: the transport finds out which, and reports it
            if sent == len(data):
                return
            self._send_later(memoryview(data)[sent:])
        else:
            self._send_later(data)

    def _send_later(self, data: bytes | memoryview) -> None:
        """Writes bytes to the transport. The rest of a frame is a view, not a copy: connections share the frame."""
        self._written_bytes += len(data)
        self._stream.write(data)

    def pause_writing(self) -> None:
        self.writable = False
        self.direct = None
        if not self.is_open:
            return
        self._progress_at_s = self._context.timers.clock.now_s()
        self._taken_bytes = self._written_bytes - self._stream.get_write_buffer_size()
        if self._timer is None:
            self._timer = self._context.timers.after(self._context.write_timeout_s, self._check_progress)

    def resume_writing(self) -> None:
        self.writable = True
        if self.is_open:
            self.direct = self._socket
            self._on_writable()

    def _check_progress(self) -> None:
        """Detects a peer that has taken no data for the write timeout.

        The timer is not cancelled when a congestion ends: making one for each congestion would cost more than this
        check.
        """
        self._timer = None
        if self.writable or not self.is_open:
            return
        context = self._context
        taken_bytes = self._written_bytes - self._stream.get_write_buffer_size()
        if taken_bytes > self._taken_bytes:
            self._taken_bytes = taken_bytes
            self._progress_at_s = context.timers.clock.now_s()
        deadline_s = self._progress_at_s + context.write_timeout_s
        if context.timers.clock.now_s() < deadline_s:
            self._timer = context.timers.at(deadline_s, self._check_progress)
            return
        context.events.emit(LimitHit("websocket.write_timeout", ""))
        self._on_write_timeout()

    def reset_unread(self) -> None:
        """Resets the connection if its peer has not taken all that was written."""
        if not self.writable:
            reset(self._stream)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _release_socket(self) -> None:
        """The connection is lost: its file descriptor must not be used any more."""
        self._context.closing.discard(self)
        self.writable = False
        self.direct = None
        if self._socket is not None:
            self._socket.detach()
            self._socket = None
        self._cancel_timer()


def _sending_socket(stream: asyncio.Transport) -> socket.socket:
    """A socket object for the stream's file descriptor that can send, which uvloop's own object cannot.

    A send() is about 5 % cheaper than a write() to the same descriptor. The object does not own the descriptor:
    `detach` must be called before the stream closes it, at the latest when the connection is reported lost.
    """
    shown = stream.get_extra_info("socket")
    return socket.socket(shown.family, shown.type, shown.proto, fileno=shown.fileno())
