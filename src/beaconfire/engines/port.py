"""What joins nodes: three ports, and the promises every engine keeps. `tests/conformance/engines` holds them to it.

Methods are coroutines because an engine may be across a network. One that is not simply never suspends, and then the
whole command runs without a task (see `eager`). Announcements come back through `BrokerEvents`, synchronously, on the
event loop's thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Raw, Struct

from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication


class HistoryOptions(Struct, frozen=True):
    """How much of a channel is kept: at most `size` publications, none older than `ttl_s`; no history if either is 0.

    `meta_ttl_s` is how long the position itself outlives the last publication. An engine whose memory is bounded may
    keep less: a stream loses its oldest publications, so that what is left has no hole, and its position only while
    nobody is attached and nothing is left.
    """

    size: int = 0
    ttl_s: float = 0.0
    meta_ttl_s: float = 30 * 86400.0

    @property
    def enabled(self) -> bool:
        return self.size > 0 and self.ttl_s > 0


NO_HISTORY = HistoryOptions()


class PublishOptions(Struct, frozen=True):
    """How to publish. See `Broker.publish`."""

    history: HistoryOptions = NO_HISTORY
    idempotency_key: str = ""
    version: int = 0
    version_epoch: str = ""
    exclude: tuple[str, ...] = ()
    """Client ids that do not get it live."""
    delta: bool = False
    """Subscribers that can put patches together may be sent one. Travels with the announcement, is not stored."""


class PublishOutcome(Struct, frozen=True):
    """`position` is (0, "") without history. `suppressed` tells why nothing was announced: "idempotency", "version"."""

    position: StreamPosition
    suppressed: str = ""


class HistoryPage(Struct, frozen=True):
    """`position` is the top of the stream at the moment of reading, not the end of the page."""

    publications: Sequence[Publication]
    position: StreamPosition


class PresenceStats(Struct, frozen=True):
    num_clients: int
    num_users: int


class BrokerEvents(Protocol):
    """What a broker tells its node. Calls are synchronous, must not raise, and per channel come in stream order."""

    def on_publication(
        self, channel: str, publication: Publication, epoch: str, exclude: Sequence[str], delta: bool = False
    ) -> None:
        """`publication.offset` is 0 and `epoch` empty where nothing is stored. `exclude` and `delta` are the
        publisher's, see `PublishOptions`."""

    def on_join(self, channel: str, info: ClientInfo) -> None: ...

    def on_leave(self, channel: str, info: ClientInfo) -> None: ...

    def on_link_lost(self, channels: Sequence[str] | None) -> None:
        """Announcements of these channels (None: of all) may have been missed; positions must be checked."""


class Broker(Protocol):
    """Publish and subscribe between nodes, with history."""

    async def start(self, events: BrokerEvents) -> None: ...

    async def stop(self) -> None: ...

    async def attach(self, channel: str) -> None:
        """When it returns, every later publication in the channel reaches `events`. Idempotent."""

    async def detach(self, channel: str) -> None:
        """Announcements of the channel end, soon. Idempotent."""

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        """Stores and announces as one atomic step: whoever reads history after seeing the announcement finds it,
        and announcements come in the order of their offsets, which rise by one within an epoch.

        With an `idempotency_key` seen in this channel within five minutes, nothing happens and the first outcome's
        position is returned. With a `version` (above 0) at or below the channel's last one under the same
        `version_epoch`, nothing happens and the current position is returned; versions need history.
        """

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        """Announces, stores nothing."""

    async def publish_leave(self, channel: str, info: ClientInfo) -> None: ...

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        """A consistent page of what is kept and the top position, creating the stream (its epoch) if there is none.

        `limit` 0 is the position only, negative is all. `since` is exclusive: later publications, or earlier ones with
        `reverse`, which yields newest first. The epoch of `since` is not compared: callers do that.
        """

    async def remove_history(self, channel: str) -> None:
        """Forgets publications; the position goes on."""


class PresenceStore(Protocol):
    """Who is in a channel now. Entries that are not refreshed vanish by themselves."""

    async def add(self, channel: str, info: ClientInfo, ttl_s: float) -> None:
        """Adds or refreshes the entry of `info.client`; it lives `ttl_s` from now."""

    async def remove(self, channel: str, client: str) -> None:
        """Idempotent."""

    async def members(self, channel: str) -> dict[str, ClientInfo]:
        """Client id to info, of entries alive now."""

    async def stats(self, channel: str) -> PresenceStats:
        """Counts of clients and of distinct users; the anonymous user counts as one."""


class ControlBus(Protocol):
    """Node-to-node messages: at most once, in order per sender."""

    async def start(self, handler: ControlHandler) -> None: ...

    async def stop(self) -> None: ...

    async def broadcast(self, message: bytes) -> None:
        """Every live node's handler gets it, this one's before this returns if the engine has only one node."""

    async def survey(self, request: bytes, timeout_s: float) -> list[bytes]:
        """Asks every live node and gathers the answers that came in time, this node's always."""


class ControlHandler(Protocol):
    def on_control(self, message: bytes) -> None: ...

    def on_survey(self, request: bytes) -> bytes: ...


class Engine(Struct, frozen=True):
    """The three together, as `app` hands them to the node."""

    name: str
    broker: Broker
    presence: PresenceStore
    control: ControlBus


__all__ = [
    "NO_HISTORY",
    "Broker",
    "BrokerEvents",
    "ControlBus",
    "ControlHandler",
    "Engine",
    "HistoryOptions",
    "HistoryPage",
    "PresenceStats",
    "PresenceStore",
    "PublishOptions",
    "PublishOutcome",
]
