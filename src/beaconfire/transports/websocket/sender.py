"""The half of a WebSocket connection that sends: bytes to the socket, and a watch over a peer that takes none.

Writes go straight to the socket while the transport's own buffer is empty, which saves a layer on every delivery; the
buffer's high-water mark is zero, so that `writable` says exactly whether it is empty and bytes can never overtake each
other. Nothing is written after the connection has been lost or handed over for closing: its file descriptor may belong
to somebody else by then.
"""

from __future__ import annotations

import asyncio
import socket

from msgspec import Struct, field
from picows import WSListener

from beaconfire.base.timers import Timer, Timers
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.transports.reset import reset
from beaconfire.transports.websocket.picows_log import PicowsLog


class ConnectionContext(Struct, frozen=True):
    """What all connections share. Sizes are bytes. `closing` are those of them that are being closed."""

    message_size_limit: int
    write_timeout_s: float
    close_timeout_s: float
    timers: Timers
    events: EventSink
    log: PicowsLog
    closing: set[Sender] = field(default_factory=set)


class Sender(WSListener):
    """Base of the connection, and not a part of it: fan-out asks for `writable` and `direct` at every delivery."""

    __slots__ = (
        "_handed_over",
        "_progress_at_s",
        "_rules",
        "_socket",
        "_stream",
        "_taken",
        "_timer",
        "direct",
        "writable",
    )

    def __init__(self, rules: ConnectionContext, stream: asyncio.Transport) -> None:
        self._rules = rules
        self._stream = stream
        secure = stream.get_extra_info("ssl_object") is not None
        # A TLS transport pauses at its mark instead of above it, so zero would pause it for ever.
        stream.set_write_buffer_limits(high=1 if secure else 0, low=0)
        self._socket = None if secure else _same_socket(stream)
        # What a TLS transport has waiting at this point is the handshake's, and no congestion.
        self.writable = secure or stream.get_write_buffer_size() == 0
        self.direct = self._socket if self.writable else None
        self._timer: Timer | None = None
        """Of the write timeout while the connection is open, of the close timeout afterwards."""
        self._handed_over = 0
        self._taken = 0
        self._progress_at_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether there may be more to send."""
        raise NotImplementedError

    def _on_room(self) -> None:
        """The peer takes something again."""
        raise NotImplementedError

    def _on_stalled(self) -> None:
        """The peer has taken nothing for the write timeout."""
        raise NotImplementedError

    def _send(self, data: bytes) -> None:
        """Hands bytes to the kernel, and what it does not take to the transport."""
        if self.writable and self._socket is not None:
            try:
                sent = self._socket.send(data)
            except OSError:
                sent = 0  # full or broken: the transport finds out which, and reports it in its own way
            if sent == len(data):
                return
            self._send_later(memoryview(data)[sent:])
        else:
            self._send_later(data)

    def _send_later(self, data: bytes | memoryview) -> None:
        """What the kernel does not take at the moment: of a frame that others share a view, which is no copy."""
        self._handed_over += len(data)
        self._stream.write(data)

    def pause_writing(self) -> None:
        self.writable = False
        self.direct = None
        if not self.is_open:
            return
        self._progress_at_s = self._rules.timers.clock.now_s()
        self._taken = self._handed_over - self._stream.get_write_buffer_size()
        if self._timer is None:
            self._timer = self._rules.timers.after(self._rules.write_timeout_s, self._check_progress)

    def resume_writing(self) -> None:
        self.writable = True
        if self.is_open:
            self.direct = self._socket
            self._on_room()

    def _check_progress(self) -> None:
        """Finds a peer that has taken nothing for the write timeout.

        The timer outlives short congestions, because making one for each would cost more than looking.
        """
        self._timer = None
        if self.writable or not self.is_open:
            return
        rules = self._rules
        taken = self._handed_over - self._stream.get_write_buffer_size()
        if taken > self._taken:
            self._taken = taken
            self._progress_at_s = rules.timers.clock.now_s()
        deadline_s = self._progress_at_s + rules.write_timeout_s
        if rules.timers.clock.now_s() < deadline_s:
            self._timer = rules.timers.at(deadline_s, self._check_progress)
            return
        rules.events.emit(LimitHit("websocket.write_timeout", ""))
        self._on_stalled()

    def reset_unread(self) -> None:
        """Resets the connection if its peer has not taken all that was written."""
        if not self.writable:
            reset(self._stream)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _let_go(self) -> None:
        """The connection is lost: the descriptor is not ours any more."""
        self._rules.closing.discard(self)
        self.writable = False
        self.direct = None
        if self._socket is not None:
            self._socket.detach()
            self._socket = None
        self._cancel_timer()


def _same_socket(stream: asyncio.Transport) -> socket.socket:
    """The stream's socket as an object that can send, which uvloop's own can not.

    A send() is some 5 % cheaper than a write() to the same descriptor. It does not own the descriptor: `detach` must be
    called before the stream closes it, which is when the connection is reported lost.
    """
    shown = stream.get_extra_info("socket")
    return socket.socket(shown.family, shown.type, shown.proto, fileno=shown.fileno())
