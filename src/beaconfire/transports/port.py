"""The port of the transports: what a session needs of a transport, and a transport of a session.

What a transport does for one connection, in this order:

1. It refuses a connection that its endpoint, the origin check or `Admit` refuses, and emits `HandshakeRefused`.
2. It calls `OpenSession` on the thread of the event loop. The session may call every method of `Transport` before
   `OpenSession` returns, also `close`.
3. It passes whole messages to the receiver, and calls `on_writable` after congestion. A message has a size limit, and a
   peer that takes nothing has a write timeout. Both are settings, and each hit emits `LimitHit`.
4. After `close`, or when the peer has gone, it calls `on_closed` once, also if the peer does not answer a closing
   handshake: the wait has a timeout. The node keeps the session until then.

The receiver raises only because of a defect. Then the transport emits `InternalError` and closes the connection,
because no exception may reach the event loop or the server around the transport.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from beaconfire.base.errors import CONNECTION_CLOSED, DisconnectCode
from beaconfire.model.handshake import Handshake
from beaconfire.protocols.port import Frame


class Transport(Protocol):
    """One client's connection, as its session sees it. No method blocks, or raises if the peer is gone."""

    @property
    def name(self) -> str:
        """The name in metrics: `websocket`."""

    @property
    def secret(self) -> str:
        """The secret with which the client sends commands for this session by separate requests (emulation).

        Empty for a transport that receives commands itself.
        """

    @property
    def writable(self) -> bool:
        """False while the peer does not read and the transport's own buffer is full. Then the session's outbox holds
        further frames until `Receiver.on_writable`; what it writes nevertheless must be kept in order."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes that `write` has accepted and the kernel has not taken yet."""

    @property
    def direct(self) -> socket.socket | None:
        """The socket, while frames may be sent to it directly; None under TLS, during congestion and after the end.

        The frames of a transport that can have a direct socket are bytes. If the socket takes only a part of a frame,
        the caller must call `write_rest` before anything else.
        """

    def write(self, frames: Sequence[Frame]) -> None:
        """Sends one or more frames of the session's wire, in order: at once if possible, otherwise from its buffer.

        The transport joins the frames as far as its connection permits, for example to one write on a socket. Makes no
        callback before it returns, because fan-out may be iterating over a table.
        """

    def write_rest(self, data: bytes, sent: int) -> None:
        """As `write`, for the rest of joined frames of which the `direct` socket took only the first `sent` bytes."""

    def ping(self) -> None:
        """Sends the transport's own ping, for protocols without pings. The pong calls `Receiver.on_transport_pong`."""

    def close(self, code: DisconnectCode, reason: str) -> None:
        """Flushes what was written, sends code and reason to the peer, and ends the connection. Idempotent."""

    def pause_reading(self) -> None:
        """Reads nothing more from the peer, so that the peer must wait. Called while many commands wait. Idempotent."""

    def resume_reading(self) -> None:
        """Reads again. Idempotent."""


class Receiver(Protocol):
    """The session, as its transport calls it. `on_closed` is the last call."""

    def on_data(self, data: bytes, binary: bool) -> None:
        """One whole message from the peer. `binary` is false for text, which must be valid UTF-8.

        A transport of byte streams finds the ends of messages itself. What comes after `Transport.close`, or before
        `pause_reading` was called, may still be passed.
        """

    def on_control_frame(self, size: int) -> None:
        """A frame without a whole message: a ping, a pong or a fragment before the last. For rate limits.

        `size` is the payload of pings and pongs in bytes. The bytes of fragments count with their message. If a
        compressed message or fragment is much larger than its inflated data, the difference is reported here too.
        """

    def on_transport_pong(self) -> None: ...

    def on_writable(self) -> None:
        """`writable` is true again. Not called within `Transport.write`, and not after `Transport.close`."""

    def positions(self) -> Mapping[str, tuple[int, str]] | None:
        """Offset and epoch by channel, for channels that can be recovered.

        They are the positions after everything is written that the session has queued. None if the session has ended:
        no position covers what it still writes.
        """

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        """The connection is closed. `code` is the reason if the transport itself closed it."""


class ErrorResponse(Struct, frozen=True):
    """An HTTP error response to a request for a connection.

    `reason` is the label in `HandshakeRefused`, `text` the body of the response.
    """

    status: int
    reason: str
    text: str
    headers: tuple[tuple[str, str], ...] = ()


Admit: TypeAlias = Callable[[], ErrorResponse | None]
"""The last check of a request, after all other checks have passed. Returns None to admit the request. The response for
a reached limit has status 503."""


class OpenSession(Protocol):
    """Opens the session of a connection that has just been accepted, and returns it as the receiver."""

    def __call__(self, transport: Transport, handshake: Handshake, /) -> Receiver:
        """`handshake` is the request that opened the connection."""
