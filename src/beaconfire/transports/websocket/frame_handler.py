"""The receiving half of a WebSocket connection: checks frames, joins them to messages and passes these on."""

from __future__ import annotations

import asyncio

from picows import WSFrame, WSMsgType, WSTransport

from beaconfire.transports.port import Receiver
from beaconfire.transports.websocket.closing import PROTOCOL_ERROR, ProtocolViolation, echoed_payload
from beaconfire.transports.websocket.deflate import Inflater
from beaconfire.transports.websocket.fragmented_message import FragmentedMessage, check_text
from beaconfire.transports.websocket.framing import CLOSE, PONG, control_frame
from beaconfire.transports.websocket.null_receiver import NULL_RECEIVER
from beaconfire.transports.websocket.sender import ConnectionContext, Sender
from beaconfire.transports.websocket_messages import MESSAGE_TOO_BIG, too_big

SURPLUS_FREE = 64
"""Bytes by which a compressed message may exceed its inflated data without counting against rate limits."""

OPEN, CLOSING, DISCARDING, ENDING, LOST = range(5)
"""The phases of a connection: see `connection`."""

_TEXT_FRAME = WSMsgType.TEXT
_BINARY_FRAME = WSMsgType.BINARY
_CONTINUATION_FRAME = WSMsgType.CONTINUATION
_CLOSE_FRAME = WSMsgType.CLOSE
_PING_FRAME = WSMsgType.PING


class FrameHandler(Sender):
    """A base class of the connection, not a part of it, to save a call for every message."""

    __slots__ = ("_fragmented", "_inflates", "_pending_pong", "_phase", "_receiver", "unread")

    def __init__(self, context: ConnectionContext, stream: asyncio.Transport, inflates: bool) -> None:
        super().__init__(context, stream)
        self._inflates = inflates
        self._receiver: Receiver = NULL_RECEIVER
        self.unread = -1
        """As in `FrameListener`."""
        self._phase = OPEN
        self._fragmented: FragmentedMessage | None = None
        self._pending_pong: bytes | None = None

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handles one complete, unmasked frame. Its memory belongs to picows and is invalid after this call."""
        self.unread = frame.tail_size
        if self._phase != OPEN:
            if self._phase == CLOSING and frame.msg_type is _CLOSE_FRAME:
                self._close_stream()
            return
        try:
            kind = frame.msg_type
            compressed = bool(frame.rsv1 or frame.rsv2 or frame.rsv3)
            if compressed:
                self._check_reserved_bits(frame, kind)
            if frame.fin and self._fragmented is None and (kind is _TEXT_FRAME or kind is _BINARY_FRAME):
                data = frame.get_payload_as_bytes()
                if self._inflates:
                    self._receive_message(data, kind is _BINARY_FRAME, compressed)
                    return
                if kind is _TEXT_FRAME:
                    check_text(data)
                self._receiver.on_data(data, kind is _BINARY_FRAME)
            elif kind is _TEXT_FRAME or kind is _BINARY_FRAME or kind is _CONTINUATION_FRAME:
                self._receive_fragment(frame, kind, compressed)
            else:
                self._receive_control_frame(kind, frame.get_payload_as_bytes())
        except ProtocolViolation as violation:
            self._fail(violation)
        except Exception:  # noqa: BLE001 - picows must not see an exception of the session
            self._on_internal_error()

    def on_whole_message(self, data: bytes, binary: bool, compressed: bool = False) -> None:
        """Handles a message of one frame, with no bytes after it. The connection must be open."""
        try:
            if compressed:
                self._receive_message(data, binary, compressed)
                return
            if not binary:
                check_text(data)
            self._receiver.on_data(data, binary)
        except ProtocolViolation as violation:
            self._fail(violation)
        except Exception:  # noqa: BLE001 - as above
            self._on_internal_error()

    def _check_reserved_bits(self, frame: WSFrame, kind: WSMsgType) -> None:
        """The first reserved bit marks a compressed message, in its first frame only (RFC 7692 section 6)."""
        if not self._inflates or frame.rsv2 or frame.rsv3:
            raise ProtocolViolation(PROTOCOL_ERROR, "reserved bits without an extension")
        if kind is not _TEXT_FRAME and kind is not _BINARY_FRAME:
            raise ProtocolViolation(PROTOCOL_ERROR, "only the first frame of a message may have the compression bit")

    def _receive_message(self, data: bytes, binary: bool, compressed: bool) -> None:
        """Passes on a whole message of a connection with compression. There the reader accepts a larger frame."""
        limit, frame_size = self._context.message_size_limit, len(data)
        if compressed:
            data = Inflater(limit).add(data, True)
        elif frame_size > limit:
            raise ProtocolViolation(MESSAGE_TOO_BIG, too_big(limit))
        if not binary:
            check_text(data)
        self._receiver.on_data(data, binary)
        self._report_surplus(frame_size - len(data))

    def _report_surplus(self, surplus: int) -> None:
        """Reports the bytes by which a compressed message exceeds its data. Small messages may exceed it a little."""
        if surplus > SURPLUS_FREE and self._phase == OPEN:
            self._receiver.on_control_frame(surplus)

    def _receive_fragment(self, frame: WSFrame, kind: WSMsgType, compressed: bool) -> None:
        fragmented = self._fragmented
        if kind is _CONTINUATION_FRAME:
            if fragmented is None:
                raise ProtocolViolation(PROTOCOL_ERROR, "continuation without a first frame")
        elif fragmented is not None:
            raise ProtocolViolation(PROTOCOL_ERROR, "new message inside a fragmented one")
        else:
            limit = self._context.message_size_limit
            fragmented = self._fragmented = FragmentedMessage(kind is _BINARY_FRAME, limit, compressed)
        final = bool(frame.fin)
        surplus = fragmented.add(frame.get_payload_as_bytes(), final)
        if final:
            self._fragmented = None
            self._receiver.on_data(fragmented.join(), fragmented.binary)
            self._report_surplus(surplus)
        else:
            self._receiver.on_control_frame(surplus)

    def _receive_control_frame(self, kind: WSMsgType, payload: bytes) -> None:
        if kind is _CLOSE_FRAME:
            self._send(control_frame(CLOSE, echoed_payload(payload)))
            self._close_stream()
            return
        self._receiver.on_control_frame(len(payload))
        if self._phase != OPEN:
            return  # the session has closed the connection, because there were too many control frames
        if kind is not _PING_FRAME:
            self._receiver.on_transport_pong()
        elif self.writable:
            self._send(control_frame(PONG, payload))
        else:
            # Only the latest ping gets a pong (RFC 6455 section 5.5.3). Otherwise a peer that sends pings and reads
            # nothing would fill our memory with pongs.
            self._pending_pong = payload

    # -- Methods of the connection -----------------------------------------------------------------------------------

    def _fail(self, violation: ProtocolViolation) -> None:
        """Ends the connection because the peer violated RFC 6455."""
        raise NotImplementedError

    def _on_internal_error(self) -> None:
        """Ends the connection because of the exception that is being handled."""
        raise NotImplementedError

    def _close_stream(self) -> None:
        """Closes the socket after all that was written is sent."""
        raise NotImplementedError
