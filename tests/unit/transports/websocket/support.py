"""A connection without a network: a fake stream, a recording receiver and a manual clock."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import CONNECTION_CLOSED, DisconnectCode
from beaconfire.base.loop import PacedCalls
from beaconfire.base.timers import Timers
from beaconfire.model.events import Event
from beaconfire.model.handshake import Handshake
from beaconfire.transports.port import Receiver, Transport
from beaconfire.transports.websocket.connection import WebSocketConnection
from beaconfire.transports.websocket.frame_reader import READ_BYTES_MAX, FrameReader, feed
from beaconfire.transports.websocket.picows_log import PicowsLog
from beaconfire.transports.websocket.sender import ConnectionContext
from beaconfire.transports.websocket.single_frame_reader import SingleFrameReader
from tests.fakes.transport import HANDSHAKE

RESPONSE = b"101\r\n\r\n"

RESET = ["drop unsent", "abort"]
"""The calls that end a stream with a reset."""


class FakeStream(asyncio.Transport):
    """The asyncio transport of a connection. `takes` is how many bytes the peer still accepts.

    Without a file descriptor it claims to use TLS, so that all bytes are written through it.
    """

    def __init__(self, descriptor: int = -1) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.written = bytearray()
        self.waiting = bytearray()
        self.takes = 1 << 30
        self.calls: list[str] = []
        self.user_timeout_ms: bytes | int = 0
        """The value of TCP_USER_TIMEOUT."""
        self.protocol: Any = None
        self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return None if self.descriptor >= 0 else self
        if name == "peername":
            return ("192.0.2.1", 50000)
        return self if name == "socket" else default

    family, type, proto = socket.AF_UNIX, socket.SOCK_STREAM, 0

    def fileno(self) -> int:
        return self.descriptor if self.descriptor >= 0 else 1 << 20

    def setsockopt(self, level: int, name: int, value: bytes | int) -> None:
        if level == socket.IPPROTO_TCP:
            self.user_timeout_ms = value
        else:
            assert (level, name, value) == (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.calls.append("drop unsent")

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.calls.append(f"limits {high} {low}")

    def get_write_buffer_size(self) -> int:
        return len(self.waiting)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert not self.is_closing(), "written after the close"
        self.waiting += data
        self._flush()
        if self.waiting and not self.paused:
            self.paused = True
            self.protocol.pause_writing()

    def take(self, count: int) -> None:
        """The peer reads `count` more bytes."""
        self.takes += count
        self._flush()
        if self.paused and not self.waiting:
            self.paused = False
            self.protocol.resume_writing()

    def _flush(self) -> None:
        self.written += self.waiting[: self.takes]
        taken = min(self.takes, len(self.waiting))
        del self.waiting[:taken]
        self.takes -= taken

    def can_write_eof(self) -> bool:
        return self.descriptor >= 0

    def write_eof(self) -> None:
        self.calls.append("eof")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return "close" in self.calls or "abort" in self.calls

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def is_reading(self) -> bool:
        return True


class RecordingReceiver:
    """A receiver that records all calls. `react` and `react_to_control` add actions."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.messages: list[tuple[bytes, bool]] = []
        self.control: list[int] = []
        self.pongs = 0
        self.writable = 0
        self.closed = 0
        self.closed_with = 0
        self.react: Callable[[bytes], None] = lambda data: None
        self.react_to_control: Callable[[], None] = lambda: None

    def on_data(self, data: bytes, binary: bool) -> None:
        self.messages.append((data, binary))
        self.react(data)

    def on_control_frame(self, size: int) -> None:
        self.control.append(size)
        self.react_to_control()

    def on_transport_pong(self) -> None:
        self.pongs += 1

    def on_writable(self) -> None:
        self.writable += 1

    def positions(self) -> Mapping[str, tuple[int, str]]:
        return {}

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        self.closed += 1
        self.closed_with = code.code


class RecordingSink:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


class ConnectionHarness:
    """One open connection. Needs a running event loop, which picows requires."""

    def __init__(self, limit: int = 1000, descriptor: int = -1, inflates: bool = False) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.sink = RecordingSink()
        self.stream = FakeStream(descriptor)
        self.receiver: RecordingReceiver
        endings = PacedCalls(lambda call: None, lambda: 0.0)
        self.context = ConnectionContext(limit, 10.0, 5.0, self.timers, self.sink, PicowsLog(self.sink), endings)
        self.connection = WebSocketConnection(self.context, self.stream, inflates)
        self.stream.protocol = self.connection.single_frame_reader()
        self.connection.begin(RESPONSE, self._open_session, HANDSHAKE)

    @property
    def reader(self) -> SingleFrameReader | FrameReader:
        assert isinstance(self.stream.protocol, SingleFrameReader | FrameReader)
        return self.stream.protocol

    def _open_session(self, transport: Transport, handshake: Handshake) -> Receiver:
        self.receiver = RecordingReceiver(transport)
        return self.receiver

    def feed(self, *frames: bytes) -> None:
        """Passes all frames to the reader in one read."""
        data = b"".join(frames)
        while data:  # in steps, because the reader may be replaced in between
            feed(self.reader, data[:READ_BYTES_MAX])
            data = data[READ_BYTES_MAX:]

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()

    def lose(self) -> None:
        """Acts as the event loop when the connection is lost."""
        self.reader.connection_lost(None)

    @property
    def sent(self) -> bytes:
        """The bytes that the peer got after the handshake response."""
        return bytes(self.stream.written[len(RESPONSE) :])


def in_loop(test: Callable[[], None]) -> Callable[[], None]:
    """Runs a test inside an event loop."""

    def run() -> None:
        async def inside() -> None:
            test()

        asyncio.run(inside())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def masked(opcode: int, payload: bytes = b"", final: bool = True, reserved: int = 0) -> bytes:
    """A masked frame, as from a client."""
    first = (0x80 if final else 0) | reserved << 4 | opcode
    if len(payload) < 126:
        head = bytes((first, 0x80 | len(payload)))
    elif len(payload) < 65536:
        head = bytes((first, 0x80 | 126)) + len(payload).to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + len(payload).to_bytes(8, "big")
    mask = b"\x11\x22\x33\x44"
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def frame(data: bytes) -> list[bytes]:
    """What the session writes if it has queued one frame."""
    return [data]


__all__ = [
    "RESET",
    "RESPONSE",
    "ConnectionHarness",
    "FakeStream",
    "RecordingReceiver",
    "RecordingSink",
    "frame",
    "in_loop",
    "masked",
]
