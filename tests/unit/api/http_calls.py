"""Calls of the server API over HTTP without sockets: with an HTTP client, or as single ASGI messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import httpx

from beaconfire.api.http import ApiHttp
from beaconfire.api.options import ApiOptions
from beaconfire.auth.keys import ApiKeys
from tests.unit.api.harness import ApiHarness

KEY = {"X-API-Key": "right"}
TRANSPORT = {"X-Centrifugo-Error-Mode": "transport"}

Requests = Callable[[ApiHarness, httpx.AsyncClient], Coroutine[Any, Any, None]]


def serve(requests: Requests, options: ApiOptions | None = None, headers: dict[str, str] = KEY) -> None:
    """Runs `requests` against a new harness. `headers` are sent with every request."""

    async def main() -> None:
        harness = await ApiHarness(options).start()
        app = ApiHttp(harness.api, ApiKeys(harness.options.keys), harness.options)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=headers) as client:
            await requests(harness, client)

    asyncio.run(main())


async def raw(app: ApiHttp, messages: Sequence[dict[str, Any] | None], **scope: Any) -> list[dict[str, Any]]:
    """The messages that the application sends for these ASGI messages. None stands for a message that never arrives."""
    waiting = list(messages)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        assert waiting, "asked for more than there is"
        message = waiting.pop(0)
        return message if message is not None else await asyncio.Future[dict[str, Any]]()

    async def send(message: Any) -> None:
        sent.append(message)

    head = {"type": "http", "method": "POST", "path": "/api/publish", "query_string": b"", "headers": []}
    await app({**head, "headers": [(b"x-api-key", b"right")], **scope}, receive, send)
    return sent


def body(*parts: bytes) -> list[dict[str, Any] | None]:
    """The ASGI messages of a request body in several parts."""
    return [{"type": "http.request", "body": part, "more_body": i < len(parts) - 1} for i, part in enumerate(parts)]
