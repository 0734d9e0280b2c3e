"""Commands that wait for their replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeAlias

from beaconfire.base.errors import EngineUnavailable
from beaconfire.engines.redis.connection import Command, Future, Reply, ServerError


class Sender(Protocol):
    """The link that sends commands."""

    lineage: bytes
    """Of the server."""

    def on_error(self, pending: Pending, error: ServerError) -> None:
        """The command was refused. It had no effect."""

    def on_unanswered(self, pending: Pending, reason: str) -> None:
        """The connection was lost before the reply."""

    def explain(self, error: ServerError) -> Exception:
        """The error of a call whose command was refused."""

    def lost_error(self, reason: str) -> EngineUnavailable:
        """The error of a call whose connection was lost."""


Again: TypeAlias = "Callable[[Sender], Command]"
"""Makes the command once more, for the new connections of this or another link. The outcome of the first try is not
known. None: the command must not be repeated then."""


class Pending:
    """A command that waits for its reply."""

    __slots__ = ("again", "command", "future", "link", "moves")

    def __init__(self, link: Sender, command: Command, again: Again | None) -> None:
        self.link = link
        self.command = command
        self.again = again
        self.moves = 0
        """How often another server was found to be responsible."""
        self.future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def on_reply(self, reply: Reply) -> None:
        if isinstance(reply, ServerError):
            self.link.on_error(self, reply)
        elif not self.future.done():
            self.future.set_result(reply)

    def on_lost(self, reason: str) -> None:
        self.link.on_unanswered(self, reason)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Ignored:
    """A waiter for a reply that nobody needs."""

    def on_reply(self, reply: Reply) -> None:
        pass

    def on_lost(self, reason: str) -> None:
        pass


class Batch(Future):
    """Waits for the replies to several commands, which need no repetition. The result is their list."""

    def __init__(self, link: Sender, count: int) -> None:
        super().__init__()
        self._link = link
        self._count = count
        self._replies: list[Reply] = []

    def on_reply(self, reply: Reply) -> None:
        if self.done():
            return
        if isinstance(reply, ServerError):
            self.set_exception(self._link.explain(reply))
            return
        self._replies.append(reply)
        if len(self._replies) == self._count:
            self.set_result(self._replies)

    def on_lost(self, reason: str) -> None:
        if not self.done():
            self.set_exception(self._link.lost_error(reason))
