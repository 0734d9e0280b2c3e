"""A session that lasts as long as one request: what it says is gathered, and is the answer.

Nothing of it stays on the node, so that the next request may go to any other. What a client knows between two of them
is its positions, and with these the next session recovers what came in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec
from msgspec import Struct
from starlette.responses import Response
from starlette.types import Receive

from beaconfire.errors import CONNECTION_CLOSED, DisconnectCode
from beaconfire.protocols.base import Frame
from beaconfire.transports.base import Arrival
from beaconfire.transports.streaming.gate import http_status


class Gathered(Struct, frozen=True):
    """What a session has said, message by message, and where it was; `end` is code and reason if it ended by itself."""

    messages: Sequence[bytes]
    positions: Mapping[str, tuple[int, str]]
    end: tuple[DisconnectCode, str] | None


class Gathering:
    """The `Transport` of a session whose messages are lines. It takes everything until the session is let go."""

    secret = ""
    direct = None
    writable = True
    buffered_bytes = 0

    def __init__(self, name: str, is_enough: Callable[[Sequence[bytes]], bool]) -> None:
        """`is_enough` is asked with all messages so far, whenever some have come."""
        self.name = name
        self._is_enough = is_enough
        self._messages: list[bytes] = []
        self._begun = asyncio.Event()
        self._enough = asyncio.Event()
        self._end: tuple[DisconnectCode, str] | None = None

    async def gather(
        self, arrival: Arrival, receive: Receive, opening: bytes, patience_s: float, wait_s: float | None = None
    ) -> Gathered | None:
        """Lets a session say what it has to until it is enough, it ends, or `patience_s` is over. None if the client
        has gone before.

        With `wait_s` patience is for the first message only, and the wait begins with it: what a session says first may
        take its time, as while keys are fetched, and is owed even to a client that does not want to wait for more.
        """
        receiver = arrival(self)
        try:
            receiver.on_data(opening, False)
            gone = asyncio.create_task(_disconnected(receive))
            try:
                if wait_s is None:
                    await _until(self._enough, gone, patience_s)
                elif await _until(self._begun, gone, patience_s):
                    await _until(self._enough, gone, wait_s)
                if gone.done():
                    return None
            finally:
                gone.cancel()
            receiver.on_writable()  # what waits for the loop's next turn is in the positions already
            gathered = Gathered(tuple(self._messages), receiver.positions() or {}, self._end)
        finally:
            receiver.on_closed()  # what it still writes is left for the next session to recover
        return gathered

    def write(self, data: Frame) -> None:
        self._messages += data.splitlines()
        self._begun.set()
        if self._is_enough(self._messages):
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
