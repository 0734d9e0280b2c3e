"""A connection without a socket: what it writes is kept, and a test hands over what it receives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from beaconfire.base.clock import ManualClock
from beaconfire.base.loop import Runtime
from beaconfire.base.timers import Timers
from beaconfire.engines.wire.frames import FrameStream, to_frame
from beaconfire.engines.wire.messages import Broadcast, FromWorker, decode_from_worker, encode


class FakeTransport(asyncio.Transport):
    """A transport whose peer reads only when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.unread_bytes = 0
        self.is_paused = False
        self.ended = ""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))
        self.unread_bytes += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


class Setup:
    """One end of a connection, which receives what a worker sends. Implements `frames.Receiver`."""

    def __init__(self, message_bytes_max: int = 1000, holds_while_full: bool = False) -> None:
        self.clock = ManualClock()
        self.scheduled: list[Callable[[], None]] = []
        self.received: list[bytes] = []
        self.lost: list[str] = []
        self.limits: list[str] = []
        self.is_open = False
        self.when_received: Callable[[bytes], None] = lambda data: None
        timers = Timers(self.clock)
        runtime = Runtime(self.scheduled.append, timers, timers, lambda: 0.0)
        self.stream: FrameStream[FromWorker] = FrameStream(
            self, decode_from_worker, runtime, message_bytes_max, holds_while_full
        )
        self.transport = FakeTransport()
        self.stream.connection_made(self.transport)

    def run_turn(self) -> None:
        """One turn of the event loop."""
        scheduled, self.scheduled[:] = list(self.scheduled), []
        for each in scheduled:
            each()

    def on_open(self) -> None:
        self.is_open = True

    def on_message(self, message: FromWorker) -> None:
        assert isinstance(message, Broadcast)
        self.received.append(message.message)
        self.when_received(message.message)

    def on_lost(self, reason: str) -> None:
        self.lost.append(reason)

    def on_limit(self, name: str) -> None:
        self.limits.append(name)


def message(data: bytes) -> bytes:
    """An encoded message that brings `data`."""
    return encode(Broadcast(1, data))


def frame(*data: bytes) -> bytes:
    """A frame with one message for each of `data`."""
    return to_frame([message(each) for each in data])
