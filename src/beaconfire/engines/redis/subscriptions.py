"""The subscriptions of one connection, which the server confirms name by name."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from beaconfire.base.errors import EngineUnavailable
from beaconfire.engines.redis.connection import Connection, pack
from beaconfire.engines.redis.keys import slot_of

NAMES_PER_COMMAND: Final = 512
"""How many names one command has."""


class _Request:
    """Names that are subscribed or unsubscribed together."""

    def __init__(self, missing: int) -> None:
        self.missing = missing
        """How many confirmations have not arrived."""
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def confirm(self) -> bool:
        """One name is confirmed. True if it was the last one."""
        self.missing -= 1
        if self.missing:
            return False
        if not self.future.done():
            self.future.set_result(None)
        return True


class Subscriptions:
    """Subscribes and unsubscribes on one connection."""

    def __init__(self, connection: Connection, sharded: bool) -> None:
        """With `sharded`, the names are those of a cluster's shards: the names of one command have one slot."""
        self._connection = connection
        self._sharded = sharded
        self._subscribe = "SSUBSCRIBE" if sharded else "SUBSCRIBE"
        self._unsubscribe = "SUNSUBSCRIBE" if sharded else "UNSUBSCRIBE"
        self._subscribing: deque[_Request] = deque()
        self._unsubscribing: dict[bytes, deque[_Request]] = {}
        """By name."""

    def subscribe(self, names: Sequence[bytes]) -> asyncio.Future[None]:
        """The result comes when the server announces all names. There must be at least one."""
        request = _Request(len(names))
        self._subscribing.append(request)
        self._write(self._subscribe, names)
        return request.future

    def unsubscribe(self, names: Sequence[bytes]) -> asyncio.Future[None]:
        """The result comes when the server announces none of the names any more, after all earlier announcements. There
        must be at least one name."""
        request = _Request(len(names))
        for name in names:
            self._unsubscribing.setdefault(name, deque()).append(request)
        self._write(self._unsubscribe, names)
        return request.future

    def _write(self, verb: str, names: Sequence[bytes]) -> None:
        for group in self._grouped(names):
            for start in range(0, len(group), NAMES_PER_COMMAND):
                self._connection.write(pack((verb, *group[start : start + NAMES_PER_COMMAND])))

    def _grouped(self, names: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
        if not self._sharded:
            return (names,)
        slots: dict[int, list[bytes]] = {}
        for name in names:
            slots.setdefault(slot_of(name), []).append(name)
        return slots.values()

    def on_subscribed(self) -> None:
        """The server has confirmed the next name."""
        if self._subscribing[0].confirm():
            self._subscribing.popleft()

    def on_unsubscribed(self, name: bytes) -> bool:
        """The server has confirmed the name. False if nobody has asked for it."""
        requests = self._unsubscribing.get(name)
        if requests is None:
            return False
        requests.popleft().confirm()
        if not requests:
            del self._unsubscribing[name]
        return True

    def close(self, error: EngineUnavailable) -> None:
        """The connection is lost: whoever waits gets the error."""
        for request in self._requests():
            if not request.future.done():
                request.future.set_exception(error)
                request.future.exception()  # marks it as seen: the caller may be gone
        self._subscribing.clear()
        self._unsubscribing.clear()

    def _requests(self) -> Iterator[_Request]:
        yield from self._subscribing
        for requests in self._unsubscribing.values():
            yield from requests
