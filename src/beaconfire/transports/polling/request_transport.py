"""What the transports of both kinds of requests have in common: each belongs to a session that lasts as long as one
request.

The node keeps nothing of such a session, so the next request may go to any other node.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from starlette.responses import Response
from starlette.types import Receive

from beaconfire.base.errors import CONNECTION_CLOSED, DisconnectCode
from beaconfire.protocols.port import Frame
from beaconfire.transports.request_checks import http_status


class RequestTransport:
    """The base of both transports. They implement `transports.port.Transport`."""

    name: Final = "poll"
    secret = ""
    direct = None
    buffered_bytes = 0

    def __init__(self) -> None:
        self.end: tuple[DisconnectCode, str] | None = None
        """Code and reason, once the session has ended itself."""

    def write(self, frames: Sequence[Frame]) -> None:
        raise NotImplementedError

    def stop_waiting(self) -> None:
        """The session has ended: makes the request continue at once."""
        raise NotImplementedError

    def write_rest(self, data: bytes, sent: int) -> None:
        raise AssertionError("a request has no direct socket")

    def ping(self) -> None:
        """A response is not open while its session runs."""

    def close(self, code: DisconnectCode, reason: str) -> None:
        if self.end is None and code.code != CONNECTION_CLOSED.code:
            self.end = (code, reason)
        self.stop_waiting()

    def pause_reading(self) -> None:
        """The request has been read completely."""

    def resume_reading(self) -> None:
        """As above."""


@asynccontextmanager
async def disconnection(receive: Receive) -> AsyncIterator[asyncio.Task[None]]:
    """A task that is done when the client has disconnected. `receive` is that of a request whose body has been read."""
    disconnected = asyncio.create_task(_wait_disconnected(receive))
    try:
        yield disconnected
    finally:
        disconnected.cancel()


async def _wait_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def wait_event(event: asyncio.Event, disconnected: asyncio.Task[None], timeout_s: float) -> bool:
    """Returns whether the event is set in time, before the client has disconnected."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({disconnected, waiting}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return event.is_set() and not disconnected.done()


def disconnect_response(code: DisconnectCode, reason: str, headers: Mapping[str, str]) -> Response:
    """The response to a request whose session has ended itself."""
    text = msgspec.json.encode({"disconnect": {"code": code.code, "reason": reason}})
    status = http_status(code)
    retry = {"Retry-After": "1"} if status == 503 else {}
    return Response(text, status, {**headers, **retry}, "application/json")
