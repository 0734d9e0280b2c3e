"""One WebSocket connection: frames come in as messages, and frames of the session go out.

`light` and `reader` read, `sending` writes, this class decides. A connection passes through these phases, only
downwards:

- OPEN: messages are delivered, frames are sent.
- CLOSING: our close frame is out; only the peer's is awaited.
- DISCARDING: the peer broke the protocol; what it still sends is read and dropped, because closing with unread bytes
  would reset the connection and could cost the peer our close frame.
- ENDING: the socket is being flushed and closed.
- LOST: it is gone, and the receiver knows.

From CLOSING on a timer cuts the connection after the close timeout, whatever the peer or the buffers do.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping

from picows import WSFrame, WSMsgType, WSTransport

from beaconfire.base.errors import CONNECTION_CLOSED, WRITE_ERROR, DisconnectCode
from beaconfire.model.events import InternalError, LimitHit
from beaconfire.protocols.port import Frame
from beaconfire.transports.port import OpenSession, Receiver
from beaconfire.transports.reset import abandon_after, reset
from beaconfire.transports.websocket.closing import (
    INTERNAL_ERROR,
    MESSAGE_TOO_BIG,
    PROTOCOL_ERROR,
    ProtocolViolation,
    close_payload,
    echoed_payload,
    too_big,
)
from beaconfire.transports.websocket.deflate import Inflater, compressed_size_limit
from beaconfire.transports.websocket.fragmented_message import FragmentedMessage, check_text
from beaconfire.transports.websocket.frame_reader import FrameReader, feed
from beaconfire.transports.websocket.framing import CLOSE, PING, PONG, control_frame
from beaconfire.transports.websocket.sender import ConnectionContext, Sender
from beaconfire.transports.websocket.single_frame_reader import CompressedSingleFrameReader, SingleFrameReader

DISCARDED_BYTES_MAX = 16 * 1024 * 1024
"""How much of a peer that broke the protocol is read and dropped, in the hope that it sees our close frame."""

SURPLUS_FREE = 64
"""Bytes by which a compressed message may exceed what it inflates to without being a burden."""

_OPEN, _CLOSING, _DISCARDING, _ENDING, _LOST = range(5)

_TEXT_FRAME = WSMsgType.TEXT
_BINARY_FRAME = WSMsgType.BINARY
_CONTINUATION_FRAME = WSMsgType.CONTINUATION
_CLOSE_FRAME = WSMsgType.CLOSE
_PING_FRAME = WSMsgType.PING

_EMPTY_PING = control_frame(PING, b"")


class WebSocketConnection(Sender):
    """The `Transport` of one WebSocket."""

    __slots__ = (
        "_assembly",
        "_discarded",
        "_inflates",
        "_owed_pong",
        "_phase",
        "_reading",
        "_receiver",
        "unread",
    )

    name = "websocket"
    secret = ""

    def __init__(self, rules: ConnectionContext, stream: asyncio.Transport, inflates: bool = False) -> None:
        """`inflates` says that the peer may send compressed messages."""
        super().__init__(rules, stream)
        self._inflates = inflates
        self._receiver: Receiver = _NOBODY
        self.unread = -1
        """How many bytes the reader holds after the last frame of this read; negative if there was none."""
        self._phase = _OPEN
        self._reading = True
        self._assembly: FragmentedMessage | None = None
        self._owed_pong: bytes | None = None
        self._discarded = 0

    def begin(self, response: bytes, open_session: OpenSession) -> None:
        """Answers the handshake and lets the receiver in. Called once, before any frame is read."""
        if not self.writable:
            self.pause_writing()  # an earlier answer is unread, and only the protocol before this one was told
        self._send(response)
        try:
            self._receiver = open_session(self)
        except Exception:  # noqa: BLE001 - the session's bug must not reach the event loop
            self._break()

    @property
    def is_open(self) -> bool:
        return self._phase == _OPEN

    @property
    def message_size_limit(self) -> int:
        return self._rules.message_size_limit

    def single_frame_reader(self) -> SingleFrameReader:
        """The protocol that reads what comes as long as it is nothing out of the ordinary."""
        return CompressedSingleFrameReader(self) if self._inflates else SingleFrameReader(self)

    def new_reader(self) -> FrameReader:
        """The protocol that reads whatever frames come for this connection."""
        limit = self._rules.message_size_limit
        return FrameReader(self, compressed_size_limit(limit) if self._inflates else limit, self._rules.log)

    # -- The session's side: Transport -------------------------------------------------------------------------------

    @property
    def buffered_bytes(self) -> int:
        """Under TLS without what is encrypted already: at most one write, and what follows it counts."""
        return self._stream.get_write_buffer_size() if self._phase != _LOST else 0

    def write(self, data: Frame) -> None:
        if self._phase == _OPEN:
            self._send(data)

    def write_rest(self, data: Frame, sent: int) -> None:
        if self._phase == _OPEN:
            self._send_later(memoryview(data)[sent:])

    def ping(self) -> None:
        if self._phase == _OPEN:
            self._send(_EMPTY_PING)

    def close(self, code: DisconnectCode, reason: str) -> None:
        """Code 3000 ends the connection without a close frame; others wait for the peer's answer to theirs."""
        if self._phase != _OPEN:
            return
        if code.code == CONNECTION_CLOSED.code:
            self._end()
            return
        self._enter(_CLOSING)
        self._send(control_frame(CLOSE, close_payload(code.code, reason)))
        self._cut_later()
        self._read_on()

    def pause_reading(self) -> None:
        if self._phase == _OPEN and self._reading:
            self._reading = False
            self._stream.pause_reading()

    def resume_reading(self) -> None:
        if self._phase == _OPEN:
            self._read_on()

    # -- The network's side: frames ----------------------------------------------------------------------------------

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """One frame, complete and unmasked. Its memory is picows's own and gone afterwards."""
        self.unread = frame.tail_size
        if self._phase != _OPEN:
            if self._phase == _CLOSING and frame.msg_type is _CLOSE_FRAME:
                self._end()
            return
        try:
            kind = frame.msg_type
            compressed = bool(frame.rsv1 or frame.rsv2 or frame.rsv3)
            if compressed:
                self._check_reserved(frame, kind)
            if frame.fin and self._assembly is None and (kind is _TEXT_FRAME or kind is _BINARY_FRAME):
                data = frame.get_payload_as_bytes()
                if self._inflates:
                    self._take_either(data, kind is _BINARY_FRAME, compressed)
                    return
                if kind is _TEXT_FRAME:
                    check_text(data)
                self._receiver.on_data(data, kind is _BINARY_FRAME)
            elif kind is _TEXT_FRAME or kind is _BINARY_FRAME or kind is _CONTINUATION_FRAME:
                self._take_fragment(frame, kind, compressed)
            else:
                self._take_control(kind, frame.get_payload_as_bytes())
        except ProtocolViolation as violation:
            self._fail(violation)
        except Exception:  # noqa: BLE001 - the session's bug must not become picows's to handle
            self._break()

    def on_whole_message(self, data: bytes, binary: bool, compressed: bool = False) -> None:
        """A message of one frame with nothing behind it. The connection must be open."""
        try:
            if compressed:
                self._take_either(data, binary, compressed)
                return
            if not binary:
                check_text(data)
            self._receiver.on_data(data, binary)
        except ProtocolViolation as violation:
            self._fail(violation)
        except Exception:  # noqa: BLE001 - as above
            self._break()

    def _check_reserved(self, frame: WSFrame, kind: WSMsgType) -> None:
        """The first reserved bit marks a compressed message, in its first frame only (RFC 7692 section 6)."""
        if not self._inflates or frame.rsv2 or frame.rsv3:
            raise ProtocolViolation(PROTOCOL_ERROR, "reserved bits without an extension")
        if kind is not _TEXT_FRAME and kind is not _BINARY_FRAME:
            raise ProtocolViolation(PROTOCOL_ERROR, "only the first frame of a message says that it is compressed")

    def _take_either(self, data: bytes, binary: bool, compressed: bool) -> None:
        """A whole message where compression was agreed on. The reader lets through a little more than the limit."""
        limit, taken = self._rules.message_size_limit, len(data)
        if compressed:
            data = Inflater(limit).add(data, True)
        elif taken > limit:
            raise ProtocolViolation(MESSAGE_TOO_BIG, too_big(limit))
        if not binary:
            check_text(data)
        self._receiver.on_data(data, binary)
        self._charge(taken - len(data))

    def _charge(self, surplus: int) -> None:
        """Lets what a message took beyond its own size count as well; small ones may be a little larger compressed."""
        if surplus > SURPLUS_FREE and self._phase == _OPEN:
            self._receiver.on_control_frame(surplus)

    def _take_fragment(self, frame: WSFrame, kind: WSMsgType, compressed: bool) -> None:
        assembly = self._assembly
        if kind is _CONTINUATION_FRAME:
            if assembly is None:
                raise ProtocolViolation(PROTOCOL_ERROR, "continuation of no message")
        elif assembly is not None:
            raise ProtocolViolation(PROTOCOL_ERROR, "new message inside a fragmented one")
        else:
            assembly = self._assembly = FragmentedMessage(
                kind is _BINARY_FRAME, self._rules.message_size_limit, compressed
            )
        final = bool(frame.fin)
        surplus = assembly.add(frame.get_payload_as_bytes(), final)
        if final:
            self._assembly = None
            self._receiver.on_data(assembly.message(), assembly.binary)
            self._charge(surplus)
        else:
            self._receiver.on_control_frame(surplus)

    def _take_control(self, kind: WSMsgType, payload: bytes) -> None:
        if kind is _CLOSE_FRAME:
            self._send(control_frame(CLOSE, echoed_payload(payload)))
            self._end()
            return
        self._receiver.on_control_frame(len(payload))
        if self._phase != _OPEN:
            return  # one too many
        if kind is not _PING_FRAME:
            self._receiver.on_transport_pong()
        elif self.writable:
            self._send(control_frame(PONG, payload))
        else:
            # Only the latest ping is answered then (RFC 6455 section 5.5.3), or a peer that sends pings and reads
            # nothing would fill our memory with pongs.
            self._owed_pong = payload

    # -- The network's side: what the reader reports -----------------------------------------------------------------

    @property
    def discards(self) -> bool:
        """Whether bytes from the peer are of no more use."""
        return self._phase >= _DISCARDING

    def on_discarded(self, count: int) -> None:
        self._discarded += count
        if self._discarded > DISCARDED_BYTES_MAX:
            self._cut()

    def on_unreadable(self, code: int, reason: str) -> None:
        """The reader cannot make frames of what came after the last one."""
        if self._phase == _OPEN:
            limit = self._rules.message_size_limit
            self._fail(ProtocolViolation(code, too_big(limit) if code == MESSAGE_TOO_BIG else reason))
        elif self._phase == _CLOSING:
            self._end()

    def read_frames(self, data: bytes) -> None:
        """From now on there may be any frames; `data` are the first bytes of them."""
        reader = self.new_reader()
        self._stream.set_protocol(reader)
        feed(reader, data)

    def renew_reader(self) -> None:
        """Starts afresh with a small buffer. The reader must hold no unread bytes."""
        self._stream.set_protocol(self.new_reader())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.on_lost()

    def on_lost(self) -> None:
        self._enter(_LOST)
        self._let_go()
        self._assembly = None
        receiver, self._receiver = self._receiver, _NOBODY
        receiver.on_closed()

    def _on_room(self) -> None:
        pong, self._owed_pong = self._owed_pong, None
        if pong is not None:
            self._send(control_frame(PONG, pong))
        if self.writable:
            self._receiver.on_writable()

    def _on_stalled(self) -> None:
        self._cut()
        receiver, self._receiver = self._receiver, _NOBODY
        receiver.on_closed(WRITE_ERROR)

    # -- The end -----------------------------------------------------------------------------------------------------

    def _enter(self, phase: int) -> None:
        self._phase = phase
        self.direct = None  # only an open connection is written to by others

    def _read_on(self) -> None:
        if not self._reading:
            self._reading = True
            self._stream.resume_reading()

    def _fail(self, violation: ProtocolViolation) -> None:
        """Tells the peer what it did wrong and lets it go."""
        if violation.code == MESSAGE_TOO_BIG:
            self._rules.events.emit(LimitHit("websocket.message_size_limit", ""))
        self._enter(_DISCARDING)
        self._assembly = None
        self._send(control_frame(CLOSE, close_payload(violation.code, violation.reason)))
        self._cut_later()
        self._read_on()
        if self._stream.can_write_eof():
            self._stream.write_eof()
        else:
            self._end()  # TLS reads and drops what still comes while it says goodbye

    def _break(self) -> None:
        """An exception of ours came through: the client is told, and so is the log."""
        self._rules.events.emit(InternalError("websocket", traceback.format_exc()))
        if self._phase == _OPEN:
            self._fail(ProtocolViolation(INTERNAL_ERROR, "internal server error"))

    def _end(self) -> None:
        """Closes the socket once what was written is flushed, or the close timeout is over.

        What the kernel has taken by then it delivers, but not to a peer that takes nothing for that time.
        """
        if self._phase < _CLOSING:
            self._cut_later()
        self._enter(_ENDING)
        abandon_after(self._stream, self._rules.close_timeout_s)
        self._stream.close()

    def _cut_later(self) -> None:
        self._cancel_timer()
        self._rules.closing.add(self)
        self._timer = self._rules.timers.after(self._rules.close_timeout_s, self._cut_overdue)

    def _cut_overdue(self) -> None:
        """The peer has neither answered our close frame nor taken the rest in time."""
        self._rules.events.emit(LimitHit("websocket.close_timeout", ""))
        self._cut()

    def _cut(self) -> None:
        """Ends the connection without waiting for the peer, and drops what it has not taken."""
        self._cancel_timer()
        self._enter(_ENDING)
        reset(self._stream)


class _Nobody:
    """The receiver before the session is there and after it has gone."""

    __slots__ = ()

    def on_data(self, data: bytes, binary: bool) -> None:
        pass

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


_NOBODY = _Nobody()
