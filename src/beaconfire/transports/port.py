"""What a session needs of whatever carries its frames."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from msgspec import Struct

from beaconfire.base.errors import CONNECTION_CLOSED, DisconnectCode
from beaconfire.protocols.port import Frame


class Transport(Protocol):
    """One client's connection, seen from its session. No method blocks or raises for a peer that is gone."""

    @property
    def name(self) -> str:
        """As in metrics: `websocket`."""

    @property
    def secret(self) -> str:
        """What the client shows to speak in this session over requests of their own; empty if it speaks in here."""

    @property
    def writable(self) -> bool:
        """False while the peer takes nothing and the transport's own buffer is full."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes accepted by `write` that the kernel has not taken yet."""

    @property
    def direct(self) -> socket.socket | None:
        """The socket, while frames may be sent to it past the transport; None under TLS, in congestion, at the end.

        Whoever sends there and finds that not all was taken must call `write_rest` before anything else.
        """

    def write(self, data: Frame) -> None:
        """Sends a frame or several joined, at once if it can, from its buffer if not.

        Calls nobody back from within, because fan-out may be walking a table.
        """

    def write_rest(self, data: Frame, sent: int) -> None:
        """As `write`, for a frame of which the `direct` socket took the first `sent` bytes and no more."""

    def ping(self) -> None:
        """The transport's own ping, for protocols without one. The pong reaches `Receiver.on_transport_pong`."""

    def close(self, code: DisconnectCode, reason: str) -> None:
        """Flushes what was written, tells the peer code and reason, and ends. Idempotent."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Receiver(Protocol):
    """What a transport calls. After `on_closed` it calls nothing more."""

    def on_data(self, data: bytes, binary: bool) -> None:
        """One whole message from the peer."""

    def on_control_frame(self, size: int) -> None:
        """A frame that carries no whole message came: a ping, a pong or an unfinished fragment. For rate limits.

        `size` is the payload of pings and pongs in bytes; that of fragments counts with their message. What a
        compressed message or fragment took beyond the bytes that it became is reported here too, if it is a burden.
        """

    def on_transport_pong(self) -> None: ...

    def on_writable(self) -> None:
        """`writable` is true again."""

    def positions(self) -> Mapping[str, tuple[int, str]] | None:
        """Offset and epoch by channel, for those that can be recovered: of the last publication of each that is
        written, once what is queued is. None if the session has ended: what it still writes is in no position.
        """

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        """The connection is gone, whoever ended it. `code` says why if it was the transport that gave up."""


class ErrorResponse(Struct, frozen=True):
    """A request for a connection answered with HTTP. `reason` is the word of `HandshakeRefused`, `text` the body of the
    response.
    """

    status: int
    reason: str
    text: str
    headers: tuple[tuple[str, str], ...] = ()


Admit: TypeAlias = Callable[[], ErrorResponse | None]
"""Asked last, for a request that is otherwise in order: None lets it in. The refusal of a limit has status 503."""


class OpenSession(Protocol):
    """Makes the receiver for a connection that has just been accepted."""

    def __call__(self, transport: Transport) -> Receiver: ...
