"""A session that lasts as long as one request: what it says is gathered, and is the answer.

Nothing of it stays on the node, so that the next request may go to any other. What a client knows between two of them
is its positions, and with these the next session recovers what came in between.

An answer is bounded while it grows: once it is full, nothing more is written to it, and it goes out with the positions
that it has reached. What the session has queued by then is in it as well: at most what may wait for any client.
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
from beaconfire.protocols.port import Frame
from beaconfire.transports.port import OpenSession
from beaconfire.transports.request_checks import http_status


class PollOutcome(Struct, frozen=True):
    """What a session has said, message by message, and where it was; `end` is code and reason if it ended by itself."""

    messages: Sequence[bytes]
    positions: Mapping[str, tuple[int, str]]
    end: tuple[DisconnectCode, str] | None


class PollTransport:
    """The `Transport` of a session whose messages are lines, for `gather` or `exchange`, once."""

    secret = ""
    direct = None
    buffered_bytes = 0

    def __init__(self, name: str, size_max: int) -> None:
        """With `size_max` bytes of messages the answer is full."""
        self.name = name
        self._size_max = size_max
        self._size = 0
        self._messages: list[bytes] = []
        self._keeps: Callable[[bytes], bool] = bool
        self._is_enough: Callable[[Sequence[bytes]], bool] = _never
        self._begun = asyncio.Event()
        self._enough = asyncio.Event()
        self._is_last = False
        self._end: tuple[DisconnectCode, str] | None = None

    @property
    def is_full(self) -> bool:
        return self._size >= self._size_max

    @property
    def writable(self) -> bool:
        return self._is_last or not self.is_full

    async def gather(
        self,
        open_session: OpenSession,
        receive: Receive,
        opening: bytes,
        patience_s: float,
        wait_s: float,
        is_enough: Callable[[Sequence[bytes]], bool],
    ) -> PollOutcome | None:
        """Lets a session say what it has to until it is enough, the answer is full, the session ends, or time is over.
        None if the client has gone before. `is_enough` is asked with all messages so far, whenever some have come.

        `patience_s` is for the first message only, and the wait begins with it: what a session says first may take its
        time, as while keys are fetched, and is owed even to a client that does not want to wait for more.
        """
        self._is_enough = is_enough
        receiver = open_session(self)
        try:
            receiver.on_data(opening, False)
            gone = asyncio.create_task(_disconnected(receive))
            try:
                if await _until(self._begun, gone, patience_s):
                    await _until(self._enough, gone, wait_s)
                if gone.done():
                    return None
            finally:
                gone.cancel()
            self._is_last = True
            receiver.on_writable()  # what waits for the loop's next turn is in the positions already
            outcome = PollOutcome(tuple(self._messages), receiver.positions() or {}, self._end)
        finally:
            receiver.on_closed()  # what it still writes is left for the next session to recover
        return outcome

    async def exchange(
        self, open_session: OpenSession, receive: Receive, commands: Sequence[bytes], patience_s: float
    ) -> PollOutcome | None:
        """Gives a session one command after the other, each once the one before has its reply, and gathers the replies.

        Ends early where the answer is full, the session ends, the first command fails, or `patience_s` is over. None if
        the client has gone.
        """
        self._keeps = is_reply
        receiver = open_session(self)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + patience_s
        try:
            gone = asyncio.create_task(_disconnected(receive))
            try:
                slice_s = loop.time()
                for count, command in enumerate(commands, start=1):
                    self._is_enough = partial(_are_so_many, count)
                    self._enough.clear()
                    receiver.on_data(command, False)
                    receiver.on_writable()  # at once, not on the loop's next turn: the next command waits for it
                    if not self._enough.is_set() and not await _until(self._enough, gone, deadline_s - loop.time()):
                        break
                    if count == 1:
                        self._size = 0  # the first reply is that of connect, which is not in the answer
                    if self._end is not None or self.is_full or (count == 1 and b'"connect":' not in self._messages[0]):
                        break
                    if loop.time() - slice_s > SLICE_S:
                        await asyncio.sleep(0)
                        slice_s = loop.time()
                if gone.done():
                    return None
            finally:
                gone.cancel()
        finally:
            receiver.on_closed()
        return PollOutcome(tuple(self._messages), {}, self._end)

    def write(self, data: Frame) -> None:
        messages = list(filter(self._keeps, data.splitlines()))
        self._messages += messages
        self._size += sum(map(len, messages))
        self._begun.set()
        if self.is_full or self._is_enough(self._messages):
            self._enough.set()

    def write_rest(self, data: Frame, sent: int) -> None:
        raise AssertionError("there is no socket to write to past the gathering")

    def ping(self) -> None:
        """Nobody waits that long."""

    def close(self, code: DisconnectCode, reason: str) -> None:
        if self._end is None and code.code != CONNECTION_CLOSED.code:
            self._end = (code, reason)
        self._begun.set()
        self._enough.set()

    def pause_reading(self) -> None:
        """There is nothing more to read."""

    def resume_reading(self) -> None:
        """As above."""


def is_reply(message: bytes) -> bool:
    """Of the native protocol in JSON, where only replies have ids."""
    return message.startswith(b'{"id":')


def _never(messages: Sequence[bytes]) -> bool:
    return False


def _are_so_many(count: int, messages: Sequence[bytes]) -> bool:
    return len(messages) >= count


async def _until(event: asyncio.Event, gone: asyncio.Task[None], timeout_s: float) -> bool:
    """Whether it has happened in time, before the client has gone."""
    happening = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({gone, happening}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        happening.cancel()
    return event.is_set() and not gone.done()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def refusal(code: DisconnectCode, reason: str, headers: Mapping[str, str]) -> Response:
    """The answer to a request whose session has ended."""
    text = msgspec.json.encode({"disconnect": {"code": code.code, "reason": reason}})
    status = http_status(code)
    retry = {"Retry-After": "1"} if status == 503 else {}
    return Response(text, status, {**headers, **retry}, "application/json")
