"""Reads WebSocket frames with picows, which is used as a parser only.

picows unmasks and splits frames in C. It must neither write nor close the connection, because it handles invalid frames
badly: it sends a close frame before it delivers the valid frames that came first, and closes the connection 10 ms
later, so that the peer may not get the close frame. So picows gets a `_NullTransport` in place of the connection. After
each read, this module reads from picows's own record which close frame picows would have sent.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn, Protocol, cast

from picows import WSAutoPingStrategy, WSListener, WSUpgradeRequest, WSUpgradeResponse
from picows.common import WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # the stub leaves it out

from beaconfire.transports.websocket.picows_log import PicowsLog

READ_BYTES_MAX = 16 * 1024
"""The most bytes of one read. picows doubles its buffer permanently whenever a read has nearly filled it."""

OVERSIZED_BYTES = 8 * 1024
"""A read buffer larger than this is dropped at the next small read: the large messages have probably ended."""

_SMALL_READ_BYTES = 1024
_READ_BUFFER_BYTES = 2048
DISCARD_BUFFER_BYTES = 64 * 1024
"""The size of the buffer for bytes that are read and dropped, which all connections of an event loop share. It is
large, so that few reads are needed."""

_REQUEST = (
    b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
"""A handshake for picows, which cannot start without one. The real handshake is complete already."""


class FrameListener(Protocol):
    """The connection, as `FrameReader` sees it. It is also a `WSListener`, to which picows delivers the frames."""

    unread: int
    """Bytes that the reader holds after the last frame of this read; -1 if the read completed no frame."""

    @property
    def discards(self) -> bool:
        """Whether the reader must drop all further bytes."""

    @property
    def discard_buffer(self) -> memoryview:
        """Where the reader puts bytes that it drops."""

    def on_discarded(self, count: int) -> None:
        """The reader has dropped `count` bytes."""

    def on_unreadable(self, code: int, reason: str) -> None:
        """The bytes after the last frame violate RFC 6455; `code` is the close code for it."""

    def renew_reader(self) -> None:
        """Replaces the reader with a new one. The reader holds no unread bytes."""


class FrameReader(WSProtocol):  # type: ignore[misc]  # no types, see above
    """The asyncio protocol of an open WebSocket. Passes frames, flow control and the end to its connection."""

    __slots__ = ("_oversized",)

    def __init__(self, connection: FrameListener, frame_size_limit: int, log: PicowsLog) -> None:
        def accept(_request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
            return WSUpgradeResponseWithListener(_RESPONSE, cast(WSListener, connection))

        super().__init__(
            host_port=None,
            ws_path=None,
            is_client_side=False,
            ws_listener_factory=accept,
            logger=log,
            disconnect_on_exception=True,
            websocket_handshake_timeout=None,
            enable_auto_ping=False,
            auto_ping_idle_timeout=None,
            auto_ping_reply_timeout=None,
            auto_ping_strategy=WSAutoPingStrategy.PING_WHEN_IDLE,
            enable_auto_pong=False,
            max_frame_size=frame_size_limit,
            extra_headers=None,
            read_buffer_init_size=_READ_BUFFER_BYTES,
        )
        self._oversized = False
        self.connection_made(_NULL_TRANSPORT)
        WSProtocol.get_buffer(self, len(_REQUEST))[: len(_REQUEST)] = _REQUEST
        WSProtocol.buffer_updated(self, len(_REQUEST))
        assert self.listener is connection, "picows did not take our handshake"
        self.transport.request.headers = None  # a kilobyte that is no longer needed

    def get_buffer(self, size_hint: int) -> memoryview:
        if self.listener.discards:
            return self.listener.discard_buffer  # type: ignore[no-any-return]  # as declared in `FrameListener`
        buffer: memoryview = WSProtocol.get_buffer(self, size_hint)
        return buffer if len(buffer) <= READ_BYTES_MAX else buffer[:READ_BYTES_MAX]

    def buffer_updated(self, count: int) -> None:
        connection: FrameListener = self.listener
        if connection.discards:
            connection.on_discarded(count)
            return
        connection.unread = -1
        WSProtocol.buffer_updated(self, count)
        if self.transport.is_close_frame_sent:
            close = self.transport.close_handshake.sent
            connection.on_unreadable(int(close.code), close.reason or "")
        elif count > _SMALL_READ_BYTES:
            self._oversized = len(WSProtocol.get_buffer(self, 0)) > OVERSIZED_BYTES
        elif self._oversized and connection.unread == 0:
            # picows never shrinks its buffer: a hundred kilobytes for each client that once sent a large message would
            # add up. A new reader starts with a small buffer; the old one holds no part of a frame.
            connection.renew_reader()


def feed(reader: asyncio.BufferedProtocol, data: bytes) -> None:
    """Passes bytes to the reader that the event loop has read for another protocol."""
    while data:
        buffer = memoryview(reader.get_buffer(len(data)))
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        reader.buffer_updated(count)
        data = data[count:]


class _NullTransport:
    """Stands in for the asyncio transport and its socket, and sends nothing. All connections share one instance.

    Its write buffer is never empty, which keeps picows from sending to a file descriptor itself. The methods to which
    picows keeps a reference are static, so that connections share them.
    """

    __slots__ = ()

    def get_extra_info(self, name: str) -> _NullTransport | None:
        return self if name == "socket" else None

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *option: int) -> None:
        pass

    def getsockopt(self, *option: int) -> int:
        return 0

    @staticmethod
    def get_write_buffer_size() -> int:
        return 1

    @staticmethod
    def write(data: object) -> None:
        pass

    def close(self) -> None:
        pass

    def writelines(self, data: object) -> NoReturn:
        raise AssertionError("picows sends no data of ours")


class _EmptyResponse(WSUpgradeResponse):
    """The handshake response that picows sends to the `_NullTransport`. The real response is sent elsewhere."""

    __slots__ = ()

    def to_bytes(self) -> bytearray:
        return bytearray()


_NULL_TRANSPORT = _NullTransport()
_RESPONSE = _EmptyResponse()
_RESPONSE.status = WSUpgradeResponse.create_101_response().status
_RESPONSE.headers = {}  # type: ignore[assignment]  # picows sets the same entry for each connection
