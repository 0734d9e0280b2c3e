"""A client of the server API on one connection, with one request at a time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.acceptance.raw_peer import RawPeer, encode_post
from tests.acceptance.server_process import API_KEY

PAGE = 1000
"""How many publications are read at a time."""


class History(NamedTuple):
    """All publications of a channel as (offset, data), and its epoch."""

    publications: list[tuple[int, Any]]
    epoch: str


class ApiConnection:
    """Every method raises OSError or EOFError if the server ends meanwhile."""

    def __init__(self, peer: RawPeer) -> None:
        self._peer = peer

    @classmethod
    @asynccontextmanager
    async def open(cls, port: int) -> AsyncIterator[ApiConnection]:
        peer = await RawPeer.connect_tcp(port)
        try:
            yield cls(peer)
        finally:
            peer.close()

    @property
    def local_port(self) -> int:
        return int(self._peer.socket.getsockname()[1])

    async def call(self, method: str, **fields: object) -> dict[str, Any]:
        """The whole response, with `result` or `error`."""
        body = json.dumps(fields).encode()
        await self._peer.send(encode_post(f"/api/{method}", body, [("X-API-Key", API_KEY)]))
        head = await self._peer.read_response_head()
        content = await self._peer.read_bytes(int(head.headers["content-length"]))
        assert head.status == 200, bytes(content)
        response: dict[str, Any] = json.loads(content)
        return response

    async def publish(self, channel: str, data: object, **fields: object) -> dict[str, Any]:
        """The receipt of a publish that succeeds."""
        response = await self.call("publish", channel=channel, data=data, **fields)
        assert "result" in response, response
        result: dict[str, Any] = response["result"]
        return result

    async def read_history(self, channel: str) -> History:
        """The whole history, in pages."""
        publications: list[tuple[int, Any]] = []
        since = 0
        while True:
            response = await self.call("history", channel=channel, limit=PAGE, since={"offset": since, "epoch": ""})
            page = response["result"]
            publications += [(each["offset"], each["data"]) for each in page["publications"]]
            if len(page["publications"]) < PAGE:
                return History(publications, page["epoch"])
            since = publications[-1][0]


async def read_history(port: int, channel: str) -> History:
    async with ApiConnection.open(port) as api:
        return await api.read_history(channel)
