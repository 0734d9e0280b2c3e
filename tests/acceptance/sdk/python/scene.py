"""What a check gets to work with, and the list of all checks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.acceptance.sdk.python.backend import Backend, connection_token, subscription_token
from tests.acceptance.sdk.python.link import Link
from tests.acceptance.sdk.python.peer import WAIT_DEADLINE_S, Peer, Room

Check = Callable[["Scene"], Awaitable[None]]

CHECKS: dict[str, Check] = {}
"""Every check by its name in `tests.acceptance.sdk.checks`."""


def check(function: Check) -> Check:
    """Registers a check under its own name."""
    CHECKS[function.__name__] = function
    return function


class Scene:
    """The stage of one check: its own channels and users, so that all checks of all runs can share a server."""

    def __init__(self, name: str, codec: str, reference: Backend, hasty: Backend) -> None:
        self.name = name
        self.protobuf = codec == "protobuf"
        self.backend = reference
        self.hasty = hasty
        self._peers: list[Peer] = []
        self._links: list[Link] = []

    @property
    def channel(self) -> str:
        """A channel without a namespace: it needs a subscription token, and keeps history and presence."""
        return self.name

    @property
    def small(self) -> str:
        """A channel of the namespace that keeps two publications and needs no token."""
        return f"small:{self.name}"

    @property
    def prices(self) -> str:
        """A channel of the namespace with deltas and filters, which needs no token either."""
        return f"prices:{self.name}"

    def user(self, name: str) -> str:
        return f"{name}@{self.name}"

    def peer(self, name: str = "ann", *, port: int = 0, protobuf: bool | None = None, **options: Any) -> Peer:
        """A client that has not connected yet. Without options about tokens it has a good one."""
        if not options.keys() & {"token", "get_token"}:
            options["token"] = connection_token(self.user(name))
        codec = self.protobuf if protobuf is None else protobuf
        peer = Peer(port or self.backend.port, codec, **options)
        self._peers.append(peer)
        return peer

    async def connected(self, name: str = "ann", **options: Any) -> Peer:
        """A client that is connected and has heard all that comes with it.

        The latter because a client before 0.6 misses the code of a close that arrives together with a message.
        """
        peer = await self.peer(name, **options).connect()
        await peer.diary.wait("join", channel=f"#{self.user(name)}")
        return peer

    def token(self, name: str = "ann", channel: str = "", **claims: Any) -> str:
        """A subscription token for one of this scene's users."""
        return subscription_token(self.user(name), channel or self.channel, **claims)

    async def joined(self, name: str = "ann", channel: str = "", **options: Any) -> Room:
        """A connected client's subscription to the scene's channel, or to another one."""
        channel = channel or self.channel
        peer = await self.connected(name, **options)
        room = await peer.subscribe(channel, token=self.token(name, channel))
        if channel == self.channel:
            await room.diary.wait("join")
        return room

    async def link(self, backend: Backend | None = None) -> Link:
        link = Link((backend or self.backend).port)
        await link.open()
        self._links.append(link)
        return link

    async def close(self) -> None:
        for peer in self._peers:
            await peer.disconnect()
        for link in self._links:
            link.close()


class Tokens:
    """A backend's token endpoint: hands out the given tokens one after the other, the last one again and again.

    An exception in the list is raised instead. `asked` counts the calls.
    """

    def __init__(self, *tokens: Callable[[], str] | Exception) -> None:
        self._tokens = tokens
        self._changed = asyncio.Event()
        self.asked = 0

    async def wait_asked(self, number: int) -> None:
        async with asyncio.timeout(WAIT_DEADLINE_S):
            while self.asked < number:
                self._changed.clear()
                await self._changed.wait()

    async def __call__(self, *_: object) -> str:
        token = self._tokens[min(self.asked, len(self._tokens) - 1)]
        self.asked += 1
        self._changed.set()
        if isinstance(token, Exception):
            raise token
        return token()
