"""The body of an HTTP request, read from ASGI within bounds of size and patience."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

BODY_PAUSE_MAX_S: Final = 10.0
"""How long a body may pause."""


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


class BodyTooLargeError(Exception):
    """There is more of it than may be: HTTP 413. The rest has not been read."""


class BodyPausedError(Exception):
    """Nothing came for too long: HTTP 408. The rest has not been read."""


async def read_body(receive: Receive, size_max: int, pause_max_s: float = BODY_PAUSE_MAX_S) -> bytes:
    """The whole body, of at most `size_max` bytes. Raises the errors above. Must run in a task."""
    body = bytearray()
    try:
        async with asyncio.timeout(pause_max_s) as pause:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                chunk: bytes = message.get("body", b"")
                if len(body) + len(chunk) > size_max:
                    raise BodyTooLargeError
                if not message.get("more_body", False):
                    return bytes(body + chunk) if body else chunk
                if chunk:
                    body += chunk
                    pause.reschedule(asyncio.get_running_loop().time() + pause_max_s)
    except TimeoutError:
        raise BodyPausedError from None
