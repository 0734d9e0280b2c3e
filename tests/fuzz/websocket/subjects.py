"""The compared implementations. Each gets the same bytes and makes the same kind of log.

A log contains `("message", data, binary)`, `("pong", payload)` and at its end at most one `("close", code)`, in the
order of receiving and sending. Code 0 means a close frame without a code.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import wsproto.events
from websockets.frames import Frame as WebsocketsFrame
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from wsproto.connection import Connection, ConnectionState, ConnectionType

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import CONNECTION_CLOSED, DisconnectCode
from beaconfire.base.loop import PacedCalls
from beaconfire.base.timers import Timers
from beaconfire.model.events import NoEvents
from beaconfire.transports.port import Transport
from beaconfire.transports.websocket.connection import WebSocketConnection
from beaconfire.transports.websocket.frame_reader import READ_BYTES_MAX, FrameReader, feed
from beaconfire.transports.websocket.picows_log import PicowsLog
from beaconfire.transports.websocket.sender import ConnectionContext
from beaconfire.transports.websocket.single_frame_reader import SingleFrameReader
from tests.fakes.transport import HANDSHAKE

LogEntry: TypeAlias = tuple[str, Any] | tuple[str, bytes, bool]
Log: TypeAlias = list[LogEntry]

NO_LIMIT = 1 << 40


def run_ours(chunks: Iterable[bytes], limit: int) -> Log:
    """Needs a running event loop."""
    log: Log = []
    stream = _LoggingStream(log)
    endings = PacedCalls(asyncio.get_running_loop().call_soon, lambda: 0.0)
    context = ConnectionContext(limit, 10.0, 5.0, Timers(ManualClock()), NoEvents(), PicowsLog(NoEvents()), endings)
    connection = WebSocketConnection(context, stream)
    stream.reader = SingleFrameReader(connection)
    connection.begin(b"", lambda transport, handshake: _LoggingReceiver(transport, log), HANDSHAKE)
    for chunk in chunks:
        for at in range(0, len(chunk), READ_BYTES_MAX):  # the reader may be replaced in between
            feed(stream.reader, chunk[at : at + READ_BYTES_MAX])
    return log


class _LoggingStream(asyncio.Transport):
    """Accepts all bytes at once and logs the control frames. No other frames are written to it."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log
        self.reader: SingleFrameReader | FrameReader

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, FrameReader)
        self.reader = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "ssl_object" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if data:
            _log_sent(self._log, bytes(data))

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class _LoggingReceiver:
    def __init__(self, transport: Transport, log: Log) -> None:
        self._log = log

    def on_data(self, data: bytes, binary: bool) -> None:
        self._log.append(("message", data, binary))

    def on_control_frame(self, size: int) -> None:
        pass

    def on_transport_pong(self) -> None:
        pass

    def on_writable(self) -> None:
        pass

    def positions(self) -> Mapping[str, tuple[int, str]]:
        return {}

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        pass


def _log_sent(log: Log, frame: bytes) -> None:
    """Logs one unmasked control frame."""
    opcode, payload = frame[0] & 0xF, frame[2:]
    assert frame[1] == len(payload), "not a control frame"
    log.append(("pong", payload) if opcode == Opcode.PONG else ("close", int.from_bytes(payload[:2], "big")))


def run_wsproto(data: bytes) -> Log:
    """wsproto has no size limits, and checks text as it is received, also within frames."""
    connection = Connection(ConnectionType.SERVER)
    log: Log = []
    parts: list[bytes] = []
    connection.receive_data(data)
    for event in connection.events():
        if isinstance(event, wsproto.events.Message):
            parts.append(event.data.encode() if isinstance(event.data, str) else bytes(event.data))
            if event.message_finished:
                log.append(("message", b"".join(parts), isinstance(event, wsproto.events.BytesMessage)))
                parts = []
        elif isinstance(event, wsproto.events.Ping):
            _log_sent(log, bytes(connection.send(event.response())))
        elif isinstance(event, wsproto.events.CloseConnection):
            if connection.state is ConnectionState.REMOTE_CLOSING:
                event = event.response()
            _log_sent(log, bytes(connection.send(event)))
            break
    return log


def run_websockets(frames: Sequence[bytes], limit: int) -> Log:
    """The protocol of websockets leaves text checks to the layer above it; this function does the same checks."""
    protocol = ServerProtocol(state=State.OPEN, max_size=limit)
    log: Log = []
    joiner = _MessageJoiner()
    for frame in frames:
        step = 1 if len(frame) < 2000 else 2000  # byte by byte, so that frames and responses are logged in order
        for at in range(0, len(frame), step):
            protocol.receive_data(frame[at : at + step])
            for event in protocol.events_received():
                assert isinstance(event, WebsocketsFrame)
                if not joiner.add(event, log):
                    protocol.fail(1007)
                    break
            for sent in protocol.data_to_send():
                if sent:
                    _log_sent(log, sent)
    return log


class _MessageJoiner:
    """Joins frames to messages."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._decoder: codecs.IncrementalDecoder | None = None

    def add(self, frame: WebsocketsFrame, log: Log) -> bool:
        """Returns False for invalid text."""
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return True
        if frame.opcode is not Opcode.CONT:
            self._parts = []
            self._decoder = codecs.getincrementaldecoder("utf-8")() if frame.opcode is Opcode.TEXT else None
        data = bytes(frame.data)
        if self._decoder is not None:
            try:
                self._decoder.decode(data, frame.fin)
            except UnicodeDecodeError:
                return False
        self._parts.append(data)
        if frame.fin:
            log.append(("message", b"".join(self._parts), self._decoder is None))
        return True


__all__ = ["NO_LIMIT", "Log", "run_ours", "run_websockets", "run_wsproto"]
