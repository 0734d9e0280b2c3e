"""Messages on one connection: each is a frame, which is four bytes with the length, big-endian, and the message.

Theory of operation. Frames that are written in one turn of the event loop are sent with one write on the next turn. All
frames of one read are decoded and handed over one after the other, for a few milliseconds at most: then other
connections have their turn. Until the rest is handed over, nothing is read from the socket.

A receiver that needs time *holds* the connection, which stops reading. The peer then waits in its own `write`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from struct import Struct
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from beaconfire.base.loop import SLICE_S, Runtime
from beaconfire.engines.wire.messages import Message, encode

FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
"""The longest frame that the hub sends. A longer reply is refused with error 106."""

REQUEST_BYTES_MAX: Final = FRAME_BYTES_MAX // 2
"""The longest frame that a worker sends. A longer request is refused with error 106. The announcement of a publication
is longer than its request by less than a kilobyte."""

OUTPUT_BYTES_MAX: Final = 2 * FRAME_BYTES_MAX
"""How much may wait for a peer that does not read. Beyond this the connection ends."""

MESSAGES_PER_TURN: Final = 2000
"""How many messages of one connection are handed over in one turn of the event loop, if that takes less than
`SLICE_S`."""

_MESSAGES_PER_CLOCK: Final = 8
"""The clock is read after this many messages."""

_WRITE_BYTES_MIN: Final = 1024 * 1024
"""From this many bytes on, waiting frames are written at once. A peer that leaves as much unread is full."""

_LENGTH: Final = Struct(">I")
_LENGTH_BYTES: Final = _LENGTH.size
_pack_length: Final = _LENGTH.pack

MessageT = TypeVar("MessageT", bound=Message)
MessageT_contra = TypeVar("MessageT_contra", bound=Message, contravariant=True)


class Receiver(Protocol[MessageT_contra]):
    """What is at this end of a connection. The methods must not raise."""

    def on_open(self) -> None:
        """The connection is open. This is the first call."""

    def on_message(self, message: MessageT_contra) -> None:
        """A message has arrived."""

    def on_lost(self, reason: str) -> None:
        """The connection has ended. This is the last call, and always comes after `on_open`.

        `reason` is empty if either end has closed the connection in the normal way.
        """

    def on_limit(self, name: str) -> None:
        """A limit ends the connection: `name` is its name in `LimitHit`. Nothing but counting may happen here."""


def to_frame(message: Message) -> bytes:
    """The frame of a message. Several connections can send the same frame."""
    data = encode(message)
    return _pack_length(len(data)) + data


class FrameStream(asyncio.Protocol, Generic[MessageT]):
    """One end of a connection."""

    def __init__(
        self,
        receiver: Receiver[MessageT],
        decode: Callable[[bytes], MessageT],
        runtime: Runtime,
        frame_bytes_max: int,
        holds_while_full: bool = False,
    ) -> None:
        """`decode` raises ValueError for anything but one message. `frame_bytes_max` is the longest frame that the peer
        may send. With `holds_while_full`, nothing is read while the peer does not read."""
        self._receiver = receiver
        self._decode = decode
        self._schedule = runtime.schedule
        self._now_s = runtime.timers.clock.now_s
        self._frame_bytes_max = frame_bytes_max
        self._holds_while_full = holds_while_full
        self._transport: asyncio.Transport | None = None
        self.is_closed = False
        """Nothing is handed over or sent any more."""
        self._reason = ""
        self._chunks: list[bytes] = []
        """What was received and not handed over."""
        self._chunks_bytes = 0
        self._needed_bytes = _LENGTH_BYTES
        """How much must be in `_chunks` to go on."""
        self._holds = 0
        self._frames: list[bytes] = []
        """Frames that were written in this turn."""
        self._frames_bytes = 0

    # The transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BYTES_MIN)
        self._receiver.on_open()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.is_closed = True
        self._transport = None
        self._chunks.clear()
        self._frames.clear()
        self._receiver.on_lost(self._reason or (str(exc) or type(exc).__name__ if exc is not None else ""))

    def extra_info(self, name: str) -> Any:
        """See `asyncio.BaseTransport.get_extra_info`. None if the connection has ended."""
        return self._transport.get_extra_info(name) if self._transport is not None else None

    # Reading

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._chunks_bytes += len(data)
        if self._chunks_bytes >= self._needed_bytes and not self._holds and not self.is_closed:
            self._hand_over()

    def hold(self) -> None:
        """Reads nothing and hands nothing over until `release`. May be called several times."""
        self._holds += 1
        if self._holds == 1 and self._transport is not None:
            self._transport.pause_reading()

    def release(self) -> None:
        """Ends one `hold`, on the next turn of the event loop."""
        self._schedule(self._end_hold)

    def _end_hold(self) -> None:
        self._holds -= 1
        if self._holds or self.is_closed or self._transport is None:
            return
        self._transport.resume_reading()
        self._hand_over()

    def _hand_over(self) -> None:
        """Hands over what has been received, as long as this turn allows."""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        end, position, count = len(data), 0, 0
        decode, on_message, unpack_from = self._decode, self._receiver.on_message, _LENGTH.unpack_from
        end_s = self._now_s() + SLICE_S
        while True:
            start = position + _LENGTH_BYTES
            if start > end:
                self._needed_bytes = _LENGTH_BYTES
                break
            (length,) = unpack_from(data, position)
            if start + length > end:
                self._needed_bytes = _LENGTH_BYTES + length
                if length > self._frame_bytes_max:
                    self._receiver.on_limit("hub_frame_max")
                    self.close(f"a frame of {length} bytes, more than {self._frame_bytes_max}")
                break
            try:
                message = decode(data[start : start + length])
            except (ValueError, RecursionError, MemoryError) as error:
                self.close(f"not a message: {error}")
                break
            position = start + length
            on_message(message)
            count += 1
            if self._holds or self.is_closed:
                self._needed_bytes = _LENGTH_BYTES
                break
            if count % _MESSAGES_PER_CLOCK == 0 and (count >= MESSAGES_PER_TURN or self._now_s() >= end_s):
                self.hold()
                self.release()
                self._needed_bytes = _LENGTH_BYTES
                break
        rest = data[position:]
        self._chunks = [rest] if rest else []
        self._chunks_bytes = len(rest)

    # Writing

    def write(self, frame: bytes) -> None:
        """Sends a frame after all frames before it. Of the receiver this calls `on_limit` at most."""
        if self.is_closed:
            return
        frames = self._frames
        if not frames:
            self._schedule(self._flush)
        frames.append(frame)
        self._frames_bytes += len(frame)
        if self._frames_bytes >= _WRITE_BYTES_MIN:
            self._flush()

    @property
    def waiting_bytes(self) -> int:
        """What the peer has not read yet, without the buffers of the kernel."""
        return self._frames_bytes + (self._transport.get_write_buffer_size() if self._transport is not None else 0)

    def _flush(self) -> None:
        frames = self._frames
        if not frames or self._transport is None:
            return
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        frames.clear()
        self._frames_bytes = 0
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > OUTPUT_BYTES_MAX:
            self._receiver.on_limit("hub_output_max")
            self.close(f"more than {OUTPUT_BYTES_MAX} bytes wait, because the other end does not read")

    def pause_writing(self) -> None:
        if self._holds_while_full:
            self.hold()

    def resume_writing(self) -> None:
        if self._holds_while_full:
            self.release()

    # The end

    def end(self, reason: str = "") -> None:
        """Sends what was written, and ends the connection. What the peer has sent is dropped."""
        if self._transport is not None and not self.is_closed:
            self._flush()
            self.is_closed = True
            self._reason = reason
            self._transport.close()

    def close(self, reason: str) -> None:
        """Ends the connection at once. Has no effect if the connection has ended."""
        if self._transport is not None and not self.is_closed:
            self.is_closed = True
            self._reason = reason
            self._transport.abort()
