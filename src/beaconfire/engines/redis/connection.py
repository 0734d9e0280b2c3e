"""One connection to a server: commands are written together once per turn of the event loop, and answered in order.

The protocol is RESP3, so announcements may arrive between replies. hiredis encodes commands and decodes replies.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias, cast

import hiredis

from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.loop import SLICE_S, Runtime
from beaconfire.base.timers import Timer

REPLIES_PER_TURN: Final = 2000
"""How many replies and announcements are handed over in one turn of the event loop, if that takes less than
`SLICE_S`."""

_REPLIES_PER_CLOCK: Final = 16
"""The clock is read after this many replies."""

WAITING_BYTES_MAX: Final = 8 * 1024 * 1024
"""How much may be received and not handed over. Beyond this, nothing is read from the socket."""

Argument: TypeAlias = bytes | str | int
Command: TypeAlias = tuple[Argument, ...]

Reply: TypeAlias = Any
"""What hiredis makes of a reply: bytes, int, None, list, dict, or `ServerError`."""


class ServerError(Exception):
    """An error reply. `code` is its first word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.split(" ", 1)[0]


class Waiter(Protocol):
    """Waits for the reply to one command. The methods must not raise. Exactly one of them is called, once."""

    def on_reply(self, reply: Reply) -> None:
        """The reply, which may be a ServerError."""

    def on_lost(self, reason: str) -> None:
        """The connection has ended before the reply. The command may have taken effect."""


class Future(asyncio.Future[Reply]):
    """A waiter that is a future. It raises ServerError, or EngineUnavailable if the connection ends."""

    def on_reply(self, reply: Reply) -> None:
        if self.done():
            return
        if isinstance(reply, ServerError):
            self.set_exception(reply)
        else:
            self.set_result(reply)

    def on_lost(self, reason: str) -> None:
        if not self.done():
            self.set_exception(EngineUnavailable(reason))


class Receiver(Protocol):
    """What is at this end of a connection. The methods must not raise."""

    def on_push(self, push: Sequence[Any]) -> None:
        """An announcement, or the confirmation of a subscription."""

    def on_lost(self, reason: str) -> None:
        """The connection has ended. This is the last call, and comes once, before the waiters are told."""


class Callbacks:
    """A receiver that calls functions. `on_lost` gets the receiver, which shows what connection was lost."""

    def __init__(self, on_push: Callable[[Sequence[Any]], None], on_lost: Callable[[Callbacks, str], None]) -> None:
        self.on_push = on_push
        self._on_lost = on_lost

    def on_lost(self, reason: str) -> None:
        self._on_lost(self, reason)


class Nobody:
    """The receiver of a connection that only answers."""

    def on_push(self, push: Sequence[Any]) -> None:
        pass

    def on_lost(self, reason: str) -> None:
        pass


pack: Final[Callable[[Command], bytes]] = hiredis.pack_command  # type: ignore[assignment]  # its stub knows tuples of one element only


class Connection(asyncio.Protocol):
    """Implements `asyncio.Protocol`."""

    def __init__(self, receiver: Receiver, runtime: Runtime, silence_s: float) -> None:
        """The connection ends if the server sends nothing for `silence_s` seconds although a command waits."""
        self._receiver = receiver
        self._runtime = runtime
        self._now_s = runtime.timers.clock.now_s
        self._silence_s = silence_s
        self._reader = hiredis.Reader(protocolError=ConnectionError, replyError=ServerError)
        self._transport: asyncio.Transport | None = None
        self.is_closed = False
        self.was_silent = False
        """The connection was ended because the server did not answer."""
        self._reason = ""
        self._waiters: deque[Waiter] = deque()
        """Of the commands that were sent, in order."""
        self._output: list[bytes] = []
        self._received_s = 0.0
        """When the server sent something, or when the first waiting command was written."""
        self._silence_timer: Timer | None = None
        self._is_scheduled = False
        """The rest of what was received is handed over on the next turn of the event loop."""
        self._received_bytes = 0
        """Received since everything was handed over."""

    # The transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.is_closed:
            self._transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._transport = None
        self.is_closed = True
        if self._silence_timer is not None:
            self._silence_timer.cancel()
        self._output.clear()
        reason = self._reason or (str(exc) if exc is not None else "the server has closed the connection")
        waiters, self._waiters = self._waiters, deque()
        self._receiver.on_lost(reason)
        for waiter in waiters:
            waiter.on_lost(reason)

    # Writing

    def send(self, command: bytes, waiter: Waiter) -> None:
        """Sends a packed command that has one reply. The connection must be open."""
        if not self._waiters:
            self._received_s = self._now_s()
            if self._silence_timer is None:
                self._watch(self._silence_s)
        self._waiters.append(waiter)
        self.write(command)

    def write(self, command: bytes) -> None:
        """Sends a packed command whose answer is an announcement, or nothing."""
        if not self._output:
            self._runtime.schedule(self._flush)
        self._output.append(command)

    def call(self, *command: Argument) -> Future:
        """Sends a command of the handshake. Raises EngineUnavailable if the connection has ended."""
        if self.is_closed:
            raise EngineUnavailable(self._reason or "the connection has ended")
        future = Future()
        self.send(pack(command), future)
        return future

    @property
    def in_flight(self) -> int:
        """How many commands wait for their reply."""
        return len(self._waiters)

    def _flush(self) -> None:
        if self._output and self._transport is not None:
            self._transport.write(b"".join(self._output))
            self._output.clear()

    # Reading

    def data_received(self, data: bytes) -> None:
        self._received_s = self._now_s()
        self._received_bytes += len(data)
        self._reader.feed(data)
        if not self._is_scheduled:
            self._hand_over()
        elif self._received_bytes > WAITING_BYTES_MAX and self._transport is not None:
            self._transport.pause_reading()

    def _hand_over(self) -> None:
        """Hands over what has been received, as long as this turn allows."""
        self._is_scheduled = False
        gets, waiters, on_push = self._reader.gets, self._waiters, self._receiver.on_push
        end_s = self._now_s() + SLICE_S
        count = 0
        try:
            while not self.is_closed:
                reply = gets()
                if reply is False:
                    self._on_all_handed_over()
                    return
                if type(reply) is hiredis.PushNotification:
                    on_push(reply)
                elif waiters:
                    waiters.popleft().on_reply(reply)
                else:
                    self.close("the server has sent a reply to no command")
                count += 1
                if not count % _REPLIES_PER_CLOCK and (count >= REPLIES_PER_TURN or self._now_s() >= end_s):
                    self._is_scheduled = True
                    self._runtime.schedule(self._hand_over)
                    return
        except ConnectionError as error:
            self.close(f"not the protocol RESP3: {error}")

    def _on_all_handed_over(self) -> None:
        if self._received_bytes > WAITING_BYTES_MAX and self._transport is not None:
            self._transport.resume_reading()
        self._received_bytes = 0

    # The end

    def _watch(self, delay_s: float) -> None:
        self._silence_timer = self._runtime.prompt_timers.after(delay_s, self._check_silence)

    def _check_silence(self) -> None:
        self._silence_timer = None
        if not self._waiters or self.is_closed:
            return
        left_s = self._received_s + self._silence_s - self._now_s()
        if left_s > 0 or self._is_scheduled:
            self._watch(max(left_s, 0.05))
        else:
            self.was_silent = True
            self.close(f"no answer within {self._silence_s:g} s")

    def close(self, reason: str) -> None:
        """Ends the connection at once. `Receiver.on_lost` follows on a later turn. Idempotent."""
        if not self.is_closed:
            self.is_closed = True
            self._reason = reason
            if self._transport is not None:
                self._transport.abort()
