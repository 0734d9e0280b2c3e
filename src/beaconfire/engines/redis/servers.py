"""The masters behind the engine: which link a key belongs to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from beaconfire.engines.port import EngineState
from beaconfire.engines.redis.address import Host
from beaconfire.engines.redis.connection import ServerError
from beaconfire.engines.redis.link import Link, LinkOwner
from beaconfire.engines.redis.pending import Pending

IsLost: TypeAlias = Callable[[bytes], bool]
"""Whether a name belongs to a master whose link was lost. None in its place: all names."""


Locate: TypeAlias = Callable[[], Awaitable[Host]]
MakeLink: TypeAlias = Callable[[LinkOwner, Locate, Callable[[], str]], Link]
"""Makes a link for its owner, from what finds the master and what finds a hash tag that belongs to the master."""


class ServersOwner(Protocol):
    """What the servers tell. The methods must not raise and do not suspend."""

    def on_announcement(self, name: bytes, data: bytes) -> None: ...

    def on_link_down(self, is_lost: IsLost | None) -> None:
        """The subscriptions of these names are void."""

    def on_link_up(self, is_lost: IsLost | None) -> None:
        """These names can be subscribed again."""


class Servers(Protocol):
    """All masters of the engine."""

    sharded: bool
    """Whether announcements are those of a cluster's shards (SPUBLISH)."""

    async def start(self, owner: ServersOwner) -> None:
        """Connects. Raises EngineUnavailable; then nothing goes on."""

    async def stop(self) -> None:
        """Idempotent."""

    def links(self) -> Sequence[Link]:
        """The links to all masters."""

    def link(self, key: bytes) -> Link:
        """The link to the master of this key. Raises EngineUnavailable if there is none."""

    async def subscribe(self, names: Sequence[bytes]) -> None:
        """Like `Link.subscribe`, at the masters of the names."""

    async def unsubscribe(self, names: Sequence[bytes]) -> None:
        """Like `Link.unsubscribe`, at the masters of the names."""

    async def listen(self, handlers: Mapping[bytes, Callable[[bytes], None]], on_up: Callable[[], None]) -> None:
        """Subscribes to names that are no channels. The subscriptions are made again after each loss of the link, and
        then `on_up` is called. Only one caller may listen at a time."""

    def end_listening(self) -> None:
        """Idempotent."""

    def state(self) -> EngineState: ...


class OneServer:
    """Implements `Servers` and `LinkOwner` for a single master."""

    sharded = False

    def __init__(self, locate: Locate, make_link: MakeLink) -> None:
        self._link = make_link(self, locate, lambda: "era")
        self._links = (self._link,)
        self._owner: ServersOwner | None = None
        self._handlers: Mapping[bytes, Callable[[bytes], None]] = {}
        self._on_up: Callable[[], None] | None = None
        self.subscribe = self._link.subscribe
        self.unsubscribe = self._link.unsubscribe
        self.state = self._link.state

    async def start(self, owner: ServersOwner) -> None:
        """See `Servers.start`."""
        await self._link.start()
        self._owner = owner

    async def stop(self) -> None:
        self._owner = None
        self._link.stop()

    def links(self) -> Sequence[Link]:
        return self._links

    def link(self, key: bytes) -> Link:
        return self._link

    async def listen(self, handlers: Mapping[bytes, Callable[[bytes], None]], on_up: Callable[[], None]) -> None:
        """See `Servers.listen`."""
        self._handlers, self._on_up = dict(handlers), on_up
        await self._link.subscribe(list(handlers))

    def end_listening(self) -> None:
        self._link.unsubscribe_later(list(self._handlers))
        self._handlers, self._on_up = {}, None

    # LinkOwner

    def names(self, link: Link) -> Sequence[bytes]:
        return list(self._handlers)

    def on_up(self, link: Link) -> None:
        if self._on_up is not None:
            self._on_up()
        if self._owner is not None:
            self._owner.on_link_up(None)

    def on_down(self, link: Link, reason: str) -> None:
        if self._owner is not None:
            self._owner.on_link_down(None)

    def on_announcement(self, name: bytes, data: bytes) -> None:
        handle = self._handlers.get(name)
        if handle is not None:
            handle(data)
        elif self._owner is not None:
            self._owner.on_announcement(name, data)

    def on_unsubscribed(self, link: Link, name: bytes) -> None:
        """Servers do this in clusters only."""

    def on_moved(self, link: Link, pending: Pending, error: ServerError) -> None:
        pending.fail(link.lost_error("the server belongs to a cluster: use redis+cluster:// in redis.url"))
