"""Messages on one connection: a frame is four bytes with its length, big-endian, and a msgpack array of messages.

Theory of operation. Messages that are written in one turn of the event loop are sent as one frame on the next turn, and
decoded with one call. The messages of all frames of one read are handed over one after the other, for a few
milliseconds at most: then other connections have their turn. Until the rest is handed over, nothing is read from the
socket.

A receiver that needs time *holds* the connection, which stops reading. The peer then waits in its own `write`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from beaconfire.base.loop import SLICE_S, Runtime
from beaconfire.engines.wire.messages import Message

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
"""The longest message that the hub sends. A longer reply is refused with error 106."""

REQUEST_BYTES_MAX: Final = MESSAGE_BYTES_MAX // 2
"""The longest message that a worker sends. A longer request is refused with error 106. The announcement of a
publication is longer than its request by less than a kilobyte."""

OUTPUT_BYTES_MAX: Final = 2 * MESSAGE_BYTES_MAX
"""How much may wait for a peer that does not read. Beyond this the connection ends."""

MESSAGES_PER_TURN: Final = 2000
"""How many messages of one connection are handed over in one turn of the event loop, if that takes less than
`SLICE_S`."""

_MESSAGES_PER_CLOCK: Final = 8
"""The clock is read after this many messages."""

_WRITE_BYTES_MIN: Final = 1024 * 1024
"""A frame of several messages is shorter. When this many bytes wait, they are written at once, the last message in a
frame of its own. A peer that leaves as much unread is full."""

_LENGTH: Final = Struct(">I")
_LENGTH_BYTES: Final = _LENGTH.size
_HEADER: Final = Struct(">IBI")
"""The length of a frame; the type of its array (array 32), whatever its size; and the number of its messages."""
_ARRAY: Final = 0xDD
_ARRAY_BYTES: Final = _HEADER.size - _LENGTH_BYTES
_pack_header: Final = _HEADER.pack

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


def to_frame(messages: Sequence[bytes]) -> bytes:
    """The frame of encoded messages."""
    data = b"".join(messages)
    return _pack_header(_ARRAY_BYTES + len(data), _ARRAY, len(messages)) + data


class FrameStream(asyncio.Protocol, Generic[MessageT]):
    """One end of a connection."""

    def __init__(
        self,
        receiver: Receiver[MessageT],
        decode: Callable[[bytes | memoryview], list[MessageT]],
        runtime: Runtime,
        message_bytes_max: int,
        holds_while_full: bool = False,
    ) -> None:
        """`decode` raises ValueError for anything but one array of messages. `message_bytes_max` is the longest message
        that the peer may send. With `holds_while_full`, nothing is read while the peer does not read."""
        self._receiver = receiver
        self._decode = decode
        self._schedule = runtime.schedule
        self._now_s = runtime.timers.clock.now_s
        self._frame_bytes_max = _ARRAY_BYTES + max(message_bytes_max, _WRITE_BYTES_MIN)
        self._holds_while_full = holds_while_full
        self._transport: asyncio.Transport | None = None
        self.is_closed = False
        """Nothing is handed over or sent any more."""
        self._reason = ""
        self._chunks: list[bytes] = []
        """What was received and not decoded."""
        self._chunks_bytes = 0
        self._start = 0
        """Where the next frame starts in the first chunk."""
        self._needed_bytes = _LENGTH_BYTES
        """How much of the next frame must have arrived to go on."""
        self._messages: Iterator[MessageT] = iter(())
        """The messages of the last frame that were not handed over."""
        self._holds = 0
        self._waiting: list[bytes] = []
        """Messages that were written in this turn."""
        self._waiting_bytes = 0

    # The transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BYTES_MIN)
        self._receiver.on_open()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.is_closed = True
        self._transport = None
        self._chunks.clear()
        self._messages = iter(())
        self._waiting.clear()
        self._waiting_bytes = 0
        self._receiver.on_lost(self._reason or (str(exc) or type(exc).__name__ if exc is not None else ""))

    def extra_info(self, name: str) -> Any:
        """See `asyncio.BaseTransport.get_extra_info`. None if the connection has ended."""
        return self._transport.get_extra_info(name) if self._transport is not None else None

    # Reading

    def data_received(self, data: bytes) -> None:
        self._chunks.append(data)
        self._chunks_bytes += len(data)
        if self._chunks_bytes - self._start >= self._needed_bytes and not self._holds and not self.is_closed:
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
        on_message, now_s = self._receiver.on_message, self._now_s
        end_s = now_s() + SLICE_S
        count = 0
        while True:
            for message in self._messages:
                on_message(message)
                count += 1
                if self._holds or self.is_closed:
                    return
                if not count % _MESSAGES_PER_CLOCK and (count >= MESSAGES_PER_TURN or now_s() >= end_s):
                    self.hold()
                    self.release()
                    return
            if not self._take_frame():
                return

    def _take_frame(self) -> bool:
        """Decodes the next frame. False if it has not arrived, or if the connection has ended."""
        chunks, start = self._chunks, self._start
        if self._chunks_bytes - start < self._needed_bytes:
            return False
        if len(chunks) > 1:
            chunks[0] = chunks[0][start:]
            chunks[:] = [b"".join(chunks)]
            self._chunks_bytes, self._start, start = len(chunks[0]), 0, 0
        data = chunks[0]
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH_BYTES
        end = start + length
        if end > len(data):
            self._needed_bytes = _LENGTH_BYTES + length
            if length > self._frame_bytes_max:
                self._receiver.on_limit("hub_frame_max")
                self.close(f"a frame of {length} bytes, more than {self._frame_bytes_max}")
            return False
        self._needed_bytes = _LENGTH_BYTES
        self._start = end
        if end == len(data):
            chunks.clear()
            self._chunks_bytes = self._start = 0
        try:
            self._messages = iter(self._decode(memoryview(data)[start:end]))
        except (ValueError, RecursionError, MemoryError) as error:
            self.close(f"not a message: {error}")
            return False
        return True

    # Writing

    def write(self, message: bytes) -> None:
        """Sends an encoded message after all messages before it. Of the receiver this calls `on_limit` at most."""
        if self.is_closed:
            return
        waiting = self._waiting
        waiting_bytes = self._waiting_bytes + len(message)
        if waiting_bytes >= _WRITE_BYTES_MIN:
            self._flush()
            waiting.append(message)
            self._flush()
            return
        if not waiting:
            self._schedule(self._flush)
        waiting.append(message)
        self._waiting_bytes = waiting_bytes

    @property
    def waiting_bytes(self) -> int:
        """What the peer has not read yet, without the buffers of the kernel."""
        return self._waiting_bytes + (self._transport.get_write_buffer_size() if self._transport is not None else 0)

    def _flush(self) -> None:
        waiting, transport = self._waiting, self._transport
        if not waiting or transport is None:
            return
        frame = to_frame(waiting)
        waiting.clear()
        self._waiting_bytes = 0
        transport.write(frame)
        if transport.get_write_buffer_size() > OUTPUT_BYTES_MAX:
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
