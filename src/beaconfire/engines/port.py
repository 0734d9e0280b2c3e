"""The port of engines. An engine connects nodes: it consists of a broker, a presence store and a control bus.

The docstrings here state what each engine guarantees. The tests in `tests/conformance/engines` check these guarantees
for every engine.

* **Suspension.** Methods are coroutines because an engine may use the network. A method of an engine inside this
  process never suspends; then the whole command runs without a task (see `base.tasks`).
* **Threads.** The node calls all methods on the thread of its event loop. The engine makes all callbacks
  (`BrokerEvents`, `ControlHandler`) on the same thread, as plain function calls.
* **Concurrency.** The node may call methods concurrently, also for the same channel. Each call takes effect as one
  atomic step.
* **Errors.** Expected cases are results, not errors: unknown channels, empty streams, missing entries. Any exception
  of a method means that the engine could not do its work; the node reports the exception and answers the client with
  error 100.
* **Lifetime.** The node calls `start` before any other method and `stop` last.
* **Units.** Times to live are in seconds. Payloads are opaque bytes: an engine never interprets or changes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Raw, Struct

from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication


class HistoryOptions(Struct, frozen=True):
    """How many publications of a channel are retained, and for how long.

    A stream retains at most `size` publications, none older than `ttl_s` seconds. If either is 0, the channel has no
    history. `meta_ttl_s` is how long the position (offset and epoch) is kept after the last use of the stream, in
    seconds; it is kept at least as long as any publication.

    An engine with a memory limit may keep less. Then a stream loses its oldest publications first, so that the rest
    has no gap. It loses its position only while the channel is not attached and no publication is left.
    """

    size: int = 0
    ttl_s: float = 0.0
    meta_ttl_s: float = 30 * 86400.0

    @property
    def enabled(self) -> bool:
        """Whether the channel has history."""
        return self.size > 0 and self.ttl_s > 0


NO_HISTORY = HistoryOptions()


class PublishOptions(Struct, frozen=True):
    """Options of one publish. See `Broker.publish` for `idempotency_key`, `version` and `version_epoch`."""

    history: HistoryOptions = NO_HISTORY
    idempotency_key: str = ""
    version: int = 0
    version_epoch: str = ""
    exclude: tuple[str, ...] = ()
    """Client ids to which the node does not deliver the publication live. Passed to `BrokerEvents`, not stored."""
    delta: bool = False
    """Whether subscribers that apply patches may get a patch. Passed to `BrokerEvents`, not stored."""


class PublishOutcome(Struct, frozen=True):
    """The result of a publish.

    `position` is that of the publication, or (0, "") without history. `suppressed` is empty, or the reason why nothing
    was stored and announced: "idempotency" or "version".
    """

    position: StreamPosition
    suppressed: str = ""


class HistoryPage(Struct, frozen=True):
    """A page of history. `position` is the top of the stream at the moment of reading, not the end of the page."""

    publications: Sequence[Publication]
    position: StreamPosition


class PresenceStats(Struct, frozen=True):
    """The numbers of clients and of distinct users in a channel."""

    num_clients: int
    num_users: int


class BrokerEvents(Protocol):
    """Callbacks of the broker, implemented by the node.

    The broker calls them on the thread of the event loop, in each channel one after the other and in the order of
    publishing. A callback must not raise and does not suspend. A callback may cause further calls of the broker,
    including `publish`.
    """

    def on_publication(
        self, channel: str, publication: Publication, epoch: str, exclude: Sequence[str], delta: bool = False
    ) -> None:
        """A publication in an attached channel.

        If the publication is not stored in history, `publication.offset` is 0 and `epoch` is empty. `exclude` and
        `delta` are those of `PublishOptions`.
        """

    def on_join(self, channel: str, info: ClientInfo) -> None:
        """A client has joined an attached channel."""

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        """A client has left an attached channel."""

    def on_link_lost(self, channels: Sequence[str] | None) -> None:
        """Announcements of these channels (None means all channels) may have been lost. The node must compare the
        positions of its subscribers with the streams."""


class Broker(Protocol):
    """Publishing and subscribing between nodes, with history.

    A stream is the history of one channel. Its offsets start at 1 and rise by one within an epoch. The epoch is a
    random name that is neither empty nor "_"; it changes when a stream has lost its position.
    """

    async def start(self, events: BrokerEvents) -> None:
        """Connects the broker with its node. After this the broker makes callbacks."""

    async def stop(self) -> None:
        """Ends all attachments and callbacks. Idempotent."""

    async def attach(self, channel: str) -> None:
        """Starts the announcements of the channel on this node.

        When this returns, every later publication, join and leave in the channel reaches `BrokerEvents`. Idempotent.
        """

    async def detach(self, channel: str) -> None:
        """Ends the announcements of the channel on this node.

        A few announcements that are already on their way may still be made. Idempotent.
        """

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        """Publishes `data` in the channel: stores a publication, if `options.history` is enabled, and announces it.

        Storing and announcing are one atomic step: a reader that has seen the announcement finds the publication in
        history. Announcements of a channel are made in the order of offsets. The engine copies `data` if it stores the
        data; the caller may reuse `tags` afterwards. `info` is None if the server API publishes.

        A publish is suppressed in two cases, the first of which is checked first:

        * An `idempotency_key` was already used in this channel within the last five minutes. Then the result has the
          position of the first publish. Repetition does not prolong the five minutes.
        * `version` is above 0 and not above the last version of the channel under the same `version_epoch`. Then the
          result has the current position. Versions need history; without history they are ignored.
        """

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        """Announces that a client has joined. Nothing is stored. The order with publications is kept."""

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        """Announces that a client has left. Nothing is stored. The order with publications is kept."""

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        """Reads a page of publications and the top position, both from the same moment.

        If the channel has no stream, this creates an empty one with a new epoch. `limit` is the largest number of
        publications: 0 returns only the position, a negative limit all publications. Publications are in ascending
        order, or in descending order with `reverse`. `since` is exclusive: it selects later publications, with
        `reverse` earlier ones. The engine does not compare the epoch of `since`; the caller must do so.
        """

    async def remove_history(self, channel: str) -> None:
        """Removes the publications of the channel. The position is kept, so offsets continue."""


class PresenceStore(Protocol):
    """The clients in each channel, over all nodes. An entry that is not refreshed in time expires."""

    async def add(self, channel: str, info: ClientInfo, ttl_s: float) -> None:
        """Adds or replaces the entry of `info.client`. The entry expires `ttl_s` seconds from now."""

    async def remove(self, channel: str, client: str) -> None:
        """Removes the entry of the client, if there is one."""

    async def members(self, channel: str) -> dict[str, ClientInfo]:
        """The entries that have not expired, by client id. The dictionary belongs to the caller."""

    async def stats(self, channel: str) -> PresenceStats:
        """Counts the entries that have not expired, and their distinct users. The anonymous user counts as one."""


class ControlBus(Protocol):
    """Messages between nodes. Each message is delivered at most once, and in order per sender."""

    async def start(self, handler: ControlHandler) -> None:
        """Connects the bus with its node. After this the bus makes callbacks."""

    async def stop(self) -> None:
        """Ends all callbacks. Idempotent."""

    async def broadcast(self, message: bytes) -> None:
        """Sends the message to all live nodes, including this node. If the engine has only one node, its handler has
        run when this returns."""

    async def survey(self, request: bytes, timeout_s: float) -> list[bytes]:
        """Sends the request to all live nodes and collects the answers of `timeout_s` seconds, in any order. The answer
        of this node is always included."""


class ControlHandler(Protocol):
    """Callbacks of the control bus, implemented by the node. They must not raise and do not suspend."""

    def on_control(self, message: bytes) -> None:
        """A broadcast has arrived, possibly from this node."""

    def on_survey(self, request: bytes) -> bytes:
        """Returns the answer of this node to a survey."""


class Engine(Struct, frozen=True):
    """A broker, a presence store and a control bus. `name` is the engine's name in logs and metrics."""

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
