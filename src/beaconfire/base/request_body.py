"""Reads the body of an HTTP request from ASGI, with a limit on its size and on the time between two parts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

BODY_PAUSE_MAX_S: Final = 10.0
"""The longest time between two parts of a body."""


class ClientDisconnectedError(Exception):
    """The client closed the connection before the response was sent."""


class BodyTooLargeError(Exception):
    """The request body is larger than allowed (HTTP 413). The rest of the body has not been read."""


class BodyTimeoutError(Exception):
    """The next part of the request body did not arrive in time (HTTP 408). The rest has not been read."""


async def read_body(receive: Receive, size_max: int, pause_max_s: float = BODY_PAUSE_MAX_S) -> bytes:
    """Returns the whole body, of at most `size_max` bytes.

    Raises ClientDisconnectedError, BodyTooLargeError or BodyTimeoutError. An empty part does not restart the time
    limit of `pause_max_s` seconds. Must run in a task, because `asyncio.timeout` needs one.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(pause_max_s) as pause:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnectedError
                chunk: bytes = message.get("body", b"")
                if len(body) + len(chunk) > size_max:
                    raise BodyTooLargeError
                if not message.get("more_body", False):
                    return bytes(body + chunk) if body else chunk
                if chunk:
                    body += chunk
                    pause.reschedule(asyncio.get_running_loop().time() + pause_max_s)
    except TimeoutError:
        raise BodyTimeoutError from None
