"""The helpers of one check, and the list of all checks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.acceptance.sdk.python.backend import Backend, connection_token, subscription_token
from tests.acceptance.sdk.python.peer import WAIT_DEADLINE_S, Peer, Room
from tests.acceptance.sdk.python.tcp_proxy import TcpProxy

Check = Callable[["Scenario"], Awaitable[None]]

CHECKS: dict[str, Check] = {}
"""All checks, by their names in `tests.acceptance.sdk.checks`."""


def check(function: Check) -> Check:
    """Registers a check under its own name."""
    CHECKS[function.__name__] = function
    return function


class Scenario:
    """The environment of one check: its own channels and users, so that all checks of all runs can share a server."""

    def __init__(self, name: str, codec: str, reference: Backend, fast: Backend) -> None:
        self.name = name
        self.protobuf = codec == "protobuf"
        self.backend = reference
        self.fast = fast
        self._peers: list[Peer] = []
        self._proxies: list[TcpProxy] = []

    @property
    def channel(self) -> str:
        """A channel without a namespace: it requires a subscription token, and has history and presence."""
        return self.name

    @property
    def small(self) -> str:
        """A channel of the namespace that keeps two publications and requires no token."""
        return f"small:{self.name}"

    @property
    def prices(self) -> str:
        """A channel of the namespace with deltas and filters; it requires no token."""
        return f"prices:{self.name}"

    def user(self, name: str) -> str:
        return f"{name}@{self.name}"

    def peer(self, name: str = "ann", *, port: int = 0, protobuf: bool | None = None, **options: Any) -> Peer:
        """A client that is not connected yet. Without token options it has a valid token."""
        if not options.keys() & {"token", "get_token"}:
            options["token"] = connection_token(self.user(name))
        codec = self.protobuf if protobuf is None else protobuf
        peer = Peer(port or self.backend.port, codec, **options)
        self._peers.append(peer)
        return peer

    async def connected(self, name: str = "ann", **options: Any) -> Peer:
        """A client that is connected and has received all messages that follow the connect reply.

        A client before 0.6 loses the code of a close frame that arrives together with a message.
        """
        peer = await self.peer(name, **options).connect()
        await peer.event_log.wait("join", channel=f"#{self.user(name)}")
        return peer

    def token(self, name: str = "ann", channel: str = "", **claims: Any) -> str:
        """A subscription token for one of this scenario's users."""
        return subscription_token(self.user(name), channel or self.channel, **claims)

    async def joined(self, name: str = "ann", channel: str = "", **options: Any) -> Room:
        """The subscription of a connected client to the scenario's channel, or to another one."""
        channel = channel or self.channel
        peer = await self.connected(name, **options)
        room = await peer.subscribe(channel, token=self.token(name, channel))
        if channel == self.channel:
            await room.event_log.wait("join")
        return room

    async def proxy(self, backend: Backend | None = None) -> TcpProxy:
        proxy = TcpProxy((backend or self.backend).port)
        await proxy.open()
        self._proxies.append(proxy)
        return proxy

    async def close(self) -> None:
        for peer in self._peers:
            await peer.disconnect()
        for proxy in self._proxies:
            proxy.close()


class Tokens:
    """A backend's token endpoint: returns the given tokens one after the other, and then the last one repeatedly.

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
