"""The transport of a session that lasts as long as one request: it collects the session's messages for the response.

The node keeps nothing of the session, so the next request may go to any other node. Between two requests the client
keeps its positions, and with them the next session recovers what was published meanwhile.

The size of a response is limited while it grows. Once the response is full, nothing more is written to it, and it is
sent with the positions reached so far. It also contains what the session has queued by then: at most what may be queued
for any client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec
from msgspec import Struct
from starlette.responses import Response
from starlette.types import Receive

from beaconfire.base.errors import CONNECTION_CLOSED, DisconnectCode
from beaconfire.base.loop import SLICE_S
from beaconfire.model.handshake import Handshake
from beaconfire.protocols.port import Frame
from beaconfire.transports.port import OpenSession
from beaconfire.transports.request_checks import http_status


class PollOutcome(Struct, frozen=True):
    """The messages of a session and its positions. `end` is code and reason if the session ended itself."""

    messages: Sequence[bytes]
    positions: Mapping[str, tuple[int, str]]
    end: tuple[DisconnectCode, str] | None


class PollTransport:
    """The `Transport` of a session whose messages are lines. Call `gather` or `exchange`, once."""

    secret = ""
    direct = None
    buffered_bytes = 0

    def __init__(self, name: str, size_max: int) -> None:
        """With `size_max` bytes of messages the response is full."""
        self.name = name
        self._size_max = size_max
        self._size = 0
        self._messages: list[bytes] = []
        self._keeps: Callable[[bytes], bool] = bool
        self._is_enough: Callable[[Sequence[bytes]], bool] = _never
        self._started = asyncio.Event()
        """Set with the first message, and when the session ends."""
        self._enough = asyncio.Event()
        self._is_finishing = False
        self._end: tuple[DisconnectCode, str] | None = None

    @property
    def is_full(self) -> bool:
        return self._size >= self._size_max

    @property
    def writable(self) -> bool:
        return self._is_finishing or not self.is_full

    async def gather(
        self,
        open_session: OpenSession,
        handshake: Handshake,
        receive: Receive,
        connect_request: bytes,
        connect_timeout_s: float,
        wait_s: float,
        is_enough: Callable[[Sequence[bytes]], bool],
    ) -> PollOutcome | None:
        """Collects the messages of a session until they are enough, the response is full, the session ends, or
        `wait_s` is over. Returns None if the client has disconnected before.

        `is_enough` is called with all messages so far, after each write. `connect_timeout_s` is the time for the first
        message only, and the wait starts with that message: connecting may take time, for example to fetch keys, and
        even a client with a wait of zero must get the first message.
        """
        self._is_enough = is_enough
        receiver = open_session(self, handshake)
        try:
            receiver.on_data(connect_request, False)
            disconnected = asyncio.create_task(_wait_disconnected(receive))
            try:
                if await _wait_event(self._started, disconnected, connect_timeout_s):
                    await _wait_event(self._enough, disconnected, wait_s)
                if disconnected.done():
                    return None
            finally:
                disconnected.cancel()
            self._is_finishing = True
            receiver.on_writable()  # the positions cover what the session has queued, so it must be written now
            outcome = PollOutcome(tuple(self._messages), receiver.positions() or {}, self._end)
        finally:
            receiver.on_closed()  # the next session recovers what this session still writes
        return outcome

    async def exchange(
        self,
        open_session: OpenSession,
        handshake: Handshake,
        receive: Receive,
        commands: Sequence[bytes],
        timeout_s: float,
    ) -> PollOutcome | None:
        """Passes commands to a session one by one, each after the reply to the previous one, and collects the replies.

        Ends early if the response is full, the session ends, the first command fails, or `timeout_s` is over. Returns
        None if the client has disconnected.
        """
        self._keeps = is_reply
        receiver = open_session(self, handshake)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        try:
            disconnected = asyncio.create_task(_wait_disconnected(receive))
            try:
                slice_s = loop.time()
                for count, command in enumerate(commands, start=1):
                    self._is_enough = partial(_has_count, count)
                    self._enough.clear()
                    receiver.on_data(command, False)
                    receiver.on_writable()  # writes the reply now, because the next command waits for it
                    if not self._enough.is_set() and not await _wait_event(
                        self._enough, disconnected, deadline_s - loop.time()
                    ):
                        break
                    if count == 1:
                        self._size = 0  # the reply to connect is not part of the response
                    if self._end is not None or self.is_full or (count == 1 and b'"connect":' not in self._messages[0]):
                        break
                    if loop.time() - slice_s > SLICE_S:
                        await asyncio.sleep(0)
                        slice_s = loop.time()
                if disconnected.done():
                    return None
            finally:
                disconnected.cancel()
        finally:
            receiver.on_closed()
        return PollOutcome(tuple(self._messages), {}, self._end)

    def write(self, frames: Sequence[Frame]) -> None:
        data = b"".join(frames)  # type: ignore[arg-type]  # lines, which are bytes
        messages = list(filter(self._keeps, data.splitlines()))
        self._messages += messages
        self._size += sum(map(len, messages))
        self._started.set()
        if self.is_full or self._is_enough(self._messages):
            self._enough.set()

    def write_rest(self, data: bytes, sent: int) -> None:
        raise AssertionError("a poll has no direct socket")

    def ping(self) -> None:
        """A poll ends before a ping is due."""

    def close(self, code: DisconnectCode, reason: str) -> None:
        if self._end is None and code.code != CONNECTION_CLOSED.code:
            self._end = (code, reason)
        self._started.set()
        self._enough.set()

    def pause_reading(self) -> None:
        """The request has been read completely."""

    def resume_reading(self) -> None:
        """As above."""


def is_reply(message: bytes) -> bool:
    """Whether a message of the Centrifuge protocol in JSON is a reply: only replies have ids."""
    return message.startswith(b'{"id":')


def _never(messages: Sequence[bytes]) -> bool:
    return False


def _has_count(count: int, messages: Sequence[bytes]) -> bool:
    return len(messages) >= count


async def _wait_event(event: asyncio.Event, disconnected: asyncio.Task[None], timeout_s: float) -> bool:
    """Returns whether the event is set in time, before the client has disconnected."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({disconnected, waiting}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return event.is_set() and not disconnected.done()


async def _wait_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def disconnect_response(code: DisconnectCode, reason: str, headers: Mapping[str, str]) -> Response:
    """The response to a request whose session has ended itself."""
    text = msgspec.json.encode({"disconnect": {"code": code.code, "reason": reason}})
    status = http_status(code)
    retry = {"Retry-After": "1"} if status == 503 else {}
    return Response(text, status, {**headers, **retry}, "application/json")
