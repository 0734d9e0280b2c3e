"""The port of engines. An engine connects nodes: it consists of a broker, a presence store and a control bus.

The docstrings here state what each engine guarantees. The tests in `tests/conformance/engines` check these guarantees
for every engine.

* **Suspension.** Methods are coroutines because an engine may use the network. If `Engine.suspends` is false, no call
  ever suspends; then the whole command runs without a task (see `base.tasks`).
* **Threads.** The node calls all methods on the thread of its event loop. The engine makes all callbacks
  (`BrokerEvents`, `ControlHandler`) on the same thread, as plain function calls.
* **Concurrency.** The node may call methods concurrently, also for the same channel. Each call takes effect as one
  atomic step for each channel. Calls that are not finished may take effect in any order: a caller that needs an order
  waits for one call before it makes the next. Calls about different channels do not wait for each other longer than
  the engine's link makes them.
* **Order.** In each channel, announcements are made in the order in which publications, joins and leaves took effect.
  There is no order between channels.
* **Errors.** Expected cases are results, not errors: unknown channels, empty streams, missing entries. A method raises
  `EngineUnavailable` if the engine did not answer, `NotReplicated` or `StorageFull` as described in `base.errors`, and
  CommandError 108 for what the engine cannot offer. Any other exception is a defect; the node reports the exception
  and answers the client with error 100. After `EngineUnavailable` the call may or may not have taken effect, or may
  still do so.
* **Deadlines.** The caller sets deadlines and cancels calls. A cancelled call may or may not take effect. It leaves the
  engine usable, and does not disturb other calls.
* **Lifetime.** The node calls `start` before any other method and `stop` last. After `stop` it may call `start` again.
* **Units.** Times to live are in seconds. Payloads are opaque bytes: an engine never interprets or changes them. The
  empty payload is the object `NO_PAYLOAD` (`model.publication`), in what an engine returns and announces as well.
* **Publications.** The engine makes them: `Publication.offset` and `epoch` as described there, `tags` as a copy.
* **Encoding.** Options and outcomes without payloads are `array_like`: so engines in other processes encode them as
  they are, without the names of their fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol, TypeAlias

from msgspec import Raw, Struct

from beaconfire.engines.migration import NO_MIGRATION, Migration
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication

Durability: TypeAlias = Literal["memory", "disk", "replicated"]
"""What a stored publication survives. `memory`: the end of a node, if the engine is another process. `disk`: also the
end of the engine and a power failure, because the publication was flushed to disk. `replicated`: also the loss of one
machine, because another one has a copy."""


class HistoryOptions(Struct, frozen=True, array_like=True, gc=False):
    """How many publications of a channel are retained, for how long, and what they survive.

    A stream retains at most `size` publications, none older than `ttl_s` seconds. If either is 0, the channel has no
    history. `meta_ttl_s` is how long the position (offset and epoch) is kept after the last use of the stream, in
    seconds; it is kept at least as long as any publication. An engine that restarts may keep it longer.

    `durability` is the least that a publication has reached before `Broker.publish` returns. The publication is
    announced only then, except by engines whose documentation says that they announce it when it is stored. An engine
    may keep streams of different durabilities in different places: then a channel whose durability changes starts a new
    stream.

    An engine with a memory limit may keep less. Then a stream loses its oldest publications first, so that the rest
    has no gap. It loses its position only while the channel is not attached and no publication is left.
    """

    size: int = 0
    ttl_s: float = 0.0
    meta_ttl_s: float = 30 * 86400.0
    durability: Durability = "memory"

    @property
    def enabled(self) -> bool:
        """Whether the channel has history."""
        return self.size > 0 and self.ttl_s > 0


NO_HISTORY = HistoryOptions()

RECEIPTS_MAX: Final = 64
"""How many numbers of a producer keep the position of their publication: how many publishes of one producer may be
without an answer at the same time."""

IDEMPOTENCY_TTL_S: Final = 300.0
"""How long an idempotency key is kept: five minutes (section 20 of the protocol reference)."""

PRODUCERS_MAX: Final = 1000
"""How many producers each channel remembers."""


class PublishOptions(Struct, frozen=True, array_like=True, gc=False):
    """Options of one publish. See `Broker.publish` for those that can suppress it: `producer` and `seq`,
    `idempotency_key`, `version` and `version_epoch`."""

    history: HistoryOptions = NO_HISTORY
    idempotency_key: str = ""
    version: int = 0
    version_epoch: str = ""
    exclude: tuple[str, ...] = ()
    """Client ids to which the node does not deliver the publication live. Passed to `BrokerEvents`, not stored."""
    delta: bool = False
    """Whether subscribers that apply patches may get a patch. Passed to `BrokerEvents`, not stored."""
    producer: str = ""
    seq: int = 0


class PublishOutcome(Struct, frozen=True, array_like=True, gc=False):
    """The result of a publish.

    `position` is that of the publication, or (0, "") without history. `suppressed` is empty, or the reason why nothing
    was stored and announced: "producer", "idempotency" or "version". `durability` is what the publication has reached.
    """

    position: StreamPosition
    suppressed: str = ""
    durability: Durability = "memory"


class HistoryPage(Struct, frozen=True):
    """A page of history. `position` is the top of the stream at the moment of reading, not the end of the page.

    `continues` is true if the `since` of the request belongs to this history and no publication between `since` and
    the page is missing. Only the engine can tell: after a failover that lost the newest publications, the stream has a
    new epoch but still continues the positions before the loss. A position above the top does not belong to the
    history. With `reverse`, `continues` only tells whether the epoch of `since` belongs to the history. `continues` is
    true without `since`. It says nothing about publications after the page, which `limit` has cut off.
    """

    publications: Sequence[Publication]
    position: StreamPosition
    continues: bool


class MemberChange(Struct, frozen=True):
    """A client has joined a channel, or has left it."""

    joined: bool
    info: ClientInfo


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
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        previous: int,
        exclude: Sequence[str],
        delta: bool = False,
    ) -> None:
        """A publication in an attached channel.

        `previous` is the offset of the publication before this one in the stream, 0 for the first of the epoch; a node
        that has not received `previous` has missed publications. If the publication is not stored in history,
        `publication.offset` and `previous` are 0 and `epoch` is empty. `exclude` and `delta` are those of
        `PublishOptions`.
        """

    def on_join(self, channel: str, info: ClientInfo) -> None:
        """A client has joined an attached channel."""

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        """A client has left an attached channel."""

    def on_link_down(self, channels: Sequence[str] | None) -> None:
        """The attachments of these channels are void from now on (None: of all channels). Announcements may be lost.

        The engine reconnects by itself, and calls `on_link_up` when it has. A channel may go down again before that.
        """

    def on_link_up(self, channels: Sequence[str] | None) -> None:
        """These channels can be attached again (None: all channels).

        The node must attach the channels that it needs again, and then compare the positions of its subscribers with
        the streams. Nothing is announced in a channel between `on_link_down` and the new attach.
        """


class Broker(Protocol):
    """Publishing and subscribing between nodes, with history.

    A stream is the history of one channel. Its offsets are above 0 and rise within an epoch. The offsets of the memory
    engine start at 1 and rise by one; other engines may leave out numbers, so each announcement names its predecessor.
    The epoch is a random name that is neither empty nor "_"; it changes when a stream has lost its position, or
    publications that it had announced or acknowledged.
    """

    async def start(self, events: BrokerEvents) -> None:
        """Connects the broker with its node. After this the broker makes callbacks."""

    async def stop(self) -> None:
        """Ends all attachments and callbacks. Idempotent."""

    async def ping(self) -> None:
        """Returns when the engine has answered. Readiness uses this to find out whether the engine works."""

    async def attach(self, channels: Sequence[str]) -> None:
        """Starts the announcements of these channels on this node.

        When this returns, every later publication, join and leave in each of the channels reaches `BrokerEvents`, until
        `detach` or `on_link_down`. Idempotent for each channel. If this raises, each of the channels may be attached or
        not: the node attaches again or detaches.
        """

    async def detach(self, channels: Sequence[str]) -> None:
        """Ends the announcements of these channels on this node.

        A few announcements that are already on their way may still be made. Idempotent for each channel; a failed
        detach may be repeated.
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

        Raises CommandError 108 if the engine cannot offer `options.history.durability`. After `NotReplicated` the
        publication is stored and announced, after `StorageFull` it is neither.

        A publish is suppressed in three cases, which are checked in this order:

        * `producer` has already published `seq` in this channel. A producer numbers its publishes in a channel 1, 2,
          3 and so on. The engine takes a number only directly after the one before, in one step with the publication,
          so a producer that repeats what was not answered publishes each number exactly once. A number that was taken
          before gets the position of the first publish, if it is one of the last `RECEIPTS_MAX` numbers of the
          producer, otherwise the position (0, ""). A number after a gap raises `OutOfSequence`, which names the
          expected one. The numbers need history, otherwise CommandError 108. They are kept with the position of the
          stream, for the `PRODUCERS_MAX` producers that published last; one that is forgotten starts again with 1.
        * An `idempotency_key` was already used in this channel within the last five minutes. Then the result has the
          position of the first publish. Repetition does not prolong the five minutes.
        * `version` is above 0 and not above the last version of the channel under the same `version_epoch`. Then the
          result has the current position. Versions need history; without history they are ignored.
        """

    async def announce(self, channel: str, changes: Sequence[MemberChange]) -> None:
        """Announces joins and leaves, in this order. Nothing is stored. The order with publications is kept."""

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
        order, or in descending order with `reverse`.

        `since` is exclusive: its offset selects later publications, with `reverse` earlier ones. Its epoch does not
        change the selection, only `HistoryPage.continues`; an empty epoch means the current epoch.
        """

    async def positions(self, channels: Mapping[str, HistoryOptions]) -> dict[str, StreamPosition]:
        """The top positions of these channels, read as by `history` with limit 0, in one call.

        Each position is from its own moment within the call. The dictionary belongs to the caller.
        """

    async def remove_history(self, channel: str) -> None:
        """Removes the publications of the channel. The position is kept, so offsets continue."""


class PresenceStore(Protocol):
    """The clients in each channel, over all nodes. An entry that is not refreshed in time expires."""

    async def add(self, channel: str, members: Sequence[ClientInfo], ttl_s: float) -> None:
        """Adds or replaces the entries of these clients. The entries expire `ttl_s` seconds from now."""

    async def remove(self, channel: str, clients: Sequence[str]) -> None:
        """Removes the entries of these client ids, as far as there are any."""

    async def refresh(self, channel: str, clients: Sequence[str], ttl_s: float) -> Sequence[str]:
        """Makes the entries of these client ids expire `ttl_s` seconds from now.

        Returns the ids that have no entry, because it has expired or was lost. The caller must add them again.
        """

    async def members(self, channel: str) -> dict[str, ClientInfo]:
        """The entries that have not expired, by client id. The dictionary belongs to the caller."""

    async def stats(self, channel: str) -> PresenceStats:
        """Counts the entries that have not expired, and their distinct users. The anonymous user counts as one."""


class ControlBus(Protocol):
    """Messages between nodes. Each message is delivered at most once, and in order per sender and receiver."""

    async def start(self, uid: str, handler: ControlHandler) -> None:
        """Connects the bus with its node. After this the bus makes callbacks, and `uid` is a live node for all nodes.
        `uid` must be unique, also over time."""

    async def stop(self) -> None:
        """Ends all callbacks. The node is not live any more. Idempotent."""

    async def broadcast(self, message: bytes) -> None:
        """Sends the message to all live nodes, including this node. If the engine has only one node, its handler has
        run when this returns."""

    async def send(self, node: str, message: bytes) -> bool:
        """Sends the message to the node with this uid, at most once. False if that node is not live: then nothing was
        sent. True does not mean that the node has received the message."""

    async def survey(self, request: bytes, timeout_s: float) -> list[bytes]:
        """Sends the request to all live nodes and collects the answers of `timeout_s` seconds, in any order. The answer
        of this node is always included."""

    async def nodes(self) -> Sequence[str]:
        """The uids of the live nodes, including this node, in any order. A node that has ended without `stop` may stay
        in the list for a few seconds."""


class ControlHandler(Protocol):
    """Callbacks of the control bus, implemented by the node. They must not raise and do not suspend."""

    def on_control(self, message: bytes) -> None:
        """A broadcast or a message to this node has arrived, possibly from this node."""

    def on_survey(self, request: bytes) -> bytes:
        """Returns the answer of this node to a survey."""


class EngineState(Struct, frozen=True):
    """Whether the engine works at present, for readiness and metrics. `detail` says why it does not, for operators."""

    up: bool
    detail: str = ""


class EngineStatistics(Struct, frozen=True):
    """What the engine keeps in the memory of this process: publications, and their bytes together with positions. The
    other figures are those of `MigrationStatus`, 0 without a migration."""

    history_publications: int = 0
    history_bytes: int = 0
    migration_waiting: int = 0
    migration_read_percent: float = 0.0


class Engine(Struct, frozen=True):
    """A broker, a presence store and a control bus.

    `name` is the engine's name in logs and metrics. `suspends` is false only if no call of the engine ever suspends.
    `durabilities` are those that it offers. Subclasses override those methods that their engine needs. None of the
    methods suspends or raises.

    `immediate` are durabilities for whose streams `publish` and `history` never suspend, although other calls may.
    `keeps_order` promises that publishes take effect in the order in which they were started, in each channel, also if
    the caller does not wait for one before it starts the next. `single_node` is true only if no other node can use the
    same data: then what a node knows of its own connections is everything. `start_wait_s` and `stop_wait_s` are how
    much longer than other calls `Broker.start` and `Broker.stop` may take, in seconds. `migration` moves the streams to
    another engine.
    """

    name: str
    broker: Broker
    presence: PresenceStore
    control: ControlBus
    suspends: bool = True
    durabilities: tuple[Durability, ...] = ("memory",)
    immediate: tuple[Durability, ...] = ()
    keeps_order: bool = False
    single_node: bool = False
    start_wait_s: float = 0.0
    stop_wait_s: float = 0.0
    migration: Migration = NO_MIGRATION

    def state(self) -> EngineState:
        """What the engine knows about its link and its storage, without asking anybody."""
        return EngineState(up=True)

    def sweep(self) -> bool:
        """Frees the memory of expired data, for a few milliseconds at most. The owner calls this about every second.

        True if more remains; then the owner calls again after other work of the event loop. Expired data is never
        returned, whether it has been swept or not.
        """
        return False

    def statistics(self) -> EngineStatistics:
        """A snapshot of what the engine keeps in this process. Expired data counts until it is swept."""
        return EngineStatistics()


__all__ = [
    "IDEMPOTENCY_TTL_S",
    "NO_HISTORY",
    "PRODUCERS_MAX",
    "RECEIPTS_MAX",
    "Broker",
    "BrokerEvents",
    "ControlBus",
    "ControlHandler",
    "Durability",
    "Engine",
    "EngineState",
    "EngineStatistics",
    "HistoryOptions",
    "HistoryPage",
    "MemberChange",
    "PresenceStats",
    "PresenceStore",
    "PublishOptions",
    "PublishOutcome",
]
