"""The broker of the memory engine: history in this process, announcements to the one node of this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Raw, Struct

from beaconfire.base.clock import Clock
from beaconfire.base.errors import NOT_AVAILABLE, CommandError
from beaconfire.engines.memory.dicts import shrink_dict
from beaconfire.engines.memory.idempotency import IdempotencyKeys
from beaconfire.engines.memory.streams import Stream, Streams
from beaconfire.engines.memory.transfer import MemoryTransfer
from beaconfire.engines.port import (
    BrokerEvents,
    HistoryOptions,
    HistoryPage,
    MemberChange,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication

IDEMPOTENCY_KEYS_MAX = 300_000
"""How many keys are kept: a thousand publishes per second with a key, during the time to live of a key."""

HISTORY_BYTES_MAX = 1024**3
"""The default memory limit for streams and publications together."""

SWEEP_BUDGET = 1000
"""How many items of each kind one `sweep` removes at most: a few milliseconds, at one or two microseconds each."""

_PUBLISHES_PER_SWEEP = 64
_PUBLISH_SWEEP_BUDGET = 256
"""Each 64th publish also sweeps, so expired data cannot grow faster than it is removed: a publish adds at most one item
of each kind."""

_NO_POSITION = StreamPosition(0, "")


class MemoryBrokerStatistics(Struct, frozen=True):
    """A snapshot. Expired data counts until it is swept. `bytes` is the memory of streams and publications together.

    `idempotency_keys_evicted_total` is a counter of keys that were evicted before they expired, because of the limit.
    """

    attached_channels: int
    streams: int
    publications: int
    bytes: int
    idempotency_keys: int
    idempotency_keys_evicted_total: int


class MemoryBroker:
    """Implements `Broker`. No method ever suspends, so each call is one atomic step on the thread of the event loop.

    A callback of `BrokerEvents` may publish again. Such an inner publish stores immediately and queues its
    announcement; the outer publish announces until the queue is empty. So the order in each channel is kept, and the
    stack does not grow.
    """

    def __init__(
        self,
        clock: Clock,
        new_epoch: Callable[[], str],
        idempotency_keys_max: int,
        history_bytes_max: int,
        on_history_full: Callable[[], None],
    ) -> None:
        """See `memory_engine`."""
        self._clock = clock
        self._streams = Streams(new_epoch, self.is_attached, history_bytes_max, on_history_full)
        self._idempotency = IdempotencyKeys(idempotency_keys_max)
        self._attached: dict[str, None] = {}
        self._events: BrokerEvents | None = None
        self._queued: deque[tuple[str, Callable[[BrokerEvents], None]]] = deque()
        self._announcing = False
        self._publishes_since_sweep = 0

    # --- start and stop ------------------------------------------------------------------------------------------

    async def start(self, events: BrokerEvents) -> None:
        """Raises RuntimeError if the broker is already started, because it serves exactly one node."""
        if self._events is not None:
            raise RuntimeError("the memory broker is already started and serves one node only")
        self._events = events

    async def stop(self) -> None:
        """Ends all attachments, so nothing more is announced. Streams are kept for a later start. Idempotent."""
        self._events = None
        attached, self._attached = self._attached, {}
        for channel in attached:
            self._streams.on_detached(channel)

    def sweep(self) -> bool:
        """Frees the memory of expired data within a budget. True if more remains. See `MemoryEngine.sweep`."""
        return self._sweep(self._clock.now_s(), SWEEP_BUDGET)

    def statistics(self) -> MemoryBrokerStatistics:
        return MemoryBrokerStatistics(
            attached_channels=len(self._attached),
            streams=len(self._streams),
            publications=self._streams.publications,
            bytes=self._streams.bytes,
            idempotency_keys=len(self._idempotency),
            idempotency_keys_evicted_total=self._idempotency.evicted_total,
        )

    # --- publish and subscribe -----------------------------------------------------------------------------------

    async def ping(self) -> None:
        """Returns at once."""

    async def attach(self, channels: Sequence[str]) -> None:
        """Raises RuntimeError unless started."""
        if self._events is None:
            raise RuntimeError("the memory broker is not started")
        for channel in channels:
            self._attached[channel] = None

    async def detach(self, channels: Sequence[str]) -> None:
        """Stronger than `Broker.detach`: afterwards no announcement of the channels is made, not even a queued one."""
        for channel in channels:
            if channel in self._attached:
                del self._attached[channel]
                shrink_dict(self._attached)
                self._streams.on_detached(channel)

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        """See `Broker.publish`. When this method returns, the announcement has been made, unless the call came from
        another announcement. The only durability is "memory"."""
        history = options.history
        if history.durability != "memory":
            raise CommandError(
                NOT_AVAILABLE, f"durability {history.durability!r}: the engine 'memory' offers only 'memory'"
            )
        now_s = self._clock.now_s()
        self._publishes_since_sweep += 1
        if self._publishes_since_sweep >= _PUBLISHES_PER_SWEEP:
            self._sweep(now_s, _PUBLISH_SWEEP_BUDGET)
        if not history.enabled:
            return self._publish_unstored(channel, data, options, info, tags, now_s)
        producer, key = options.producer, options.idempotency_key
        if producer and (receipt := self._streams.receipt(channel, producer, options.seq, now_s)) is not None:
            return PublishOutcome(receipt, "producer")
        first = self._idempotency.find(channel, key, now_s) if key else None
        if first is not None:
            outcome = PublishOutcome(first, "idempotency")
        else:
            stream = self._streams.get_or_create(channel, history.meta_ttl_s, now_s)
            if options.version > 0 and not stream.advance_version(options.version, options.version_epoch):
                outcome = PublishOutcome(stream.position, "version")
            else:
                publication = self._store(stream, data, history, info, tags, now_s)
                outcome = PublishOutcome(stream.position)
            if key:
                self._idempotency.store(channel, key, outcome.position, now_s)
        if producer:
            self._streams.take_number(channel, producer, outcome.position, history.meta_ttl_s, now_s)
        if outcome.suppressed or channel not in self._attached:
            return outcome
        self._announce_publication(channel, publication, stream.epoch, publication.offset - 1, options)
        return outcome

    def _publish_unstored(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None,
        tags: Mapping[str, str] | None,
        now_s: float,
    ) -> PublishOutcome:
        """Publishes without history: only an idempotency key can suppress this."""
        if options.producer:
            raise CommandError(NOT_AVAILABLE, "producer: the numbers of producers need history")
        key = options.idempotency_key
        if key:
            first = self._idempotency.find(channel, key, now_s)
            if first is not None:
                return PublishOutcome(first, "idempotency")
            self._idempotency.store(channel, key, _NO_POSITION, now_s)
        if channel in self._attached:
            publication = Publication(data, info, 0, dict(tags) if tags else None)
            self._announce_publication(channel, publication, "", 0, options)
        return PublishOutcome(_NO_POSITION)

    async def announce(self, channel: str, changes: Sequence[MemberChange]) -> None:
        for change in changes:
            self.make_announcement(channel, _member_announcement(channel, change))

    # --- announcements -------------------------------------------------------------------------------------------

    def is_attached(self, channel: str) -> bool:
        """Whether the node gets the announcements of this channel. May be called in any thread."""
        return channel in self._attached

    def make_announcement(self, channel: str, announcement: Callable[[BrokerEvents], None]) -> None:
        """Makes an announcement if the channel is attached: at once, or after those that are being made.

        An engine that keeps some streams elsewhere uses this for them, so that all announcements have one order.
        """
        if channel not in self._attached:
            return
        self._queued.append((channel, announcement))
        if not self._announcing:
            assert self._events is not None, "channels are attached only while the broker is started"
            self._announce_queued(self._events)

    def _announce_publication(
        self, channel: str, publication: Publication, epoch: str, previous: int, options: PublishOptions
    ) -> None:
        """As `make_announcement`, for a channel that is attached. Does not queue an announcement that can be made at
        once, because nearly all can."""
        events, exclude, delta = self._events, options.exclude, options.delta
        assert events is not None, "channels are attached only while the broker is started"
        if self._announcing:
            self._queue_publication(channel, publication, epoch, previous, exclude, delta)
            return
        self._announcing = True
        try:
            events.on_publication(channel, publication, epoch, previous, exclude, delta)
        finally:
            self._announcing = False
            if self._queued:
                self._announce_queued(events)

    def _queue_publication(self, channel: str, *announced: Any) -> None:
        self._queued.append((channel, lambda events: events.on_publication(channel, *announced)))

    # --- history -------------------------------------------------------------------------------------------------

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        """See `Broker.history`. Only `options.meta_ttl_s` is used: `size` and `ttl_s` were applied at each publish.

        If the memory limit is reached and the channel is not attached, the new position may be removed before this
        returns. Then the channel gets another epoch at its next use."""
        now_s = self._clock.now_s()
        stream = self._streams.get_or_create(channel, options.meta_ttl_s, now_s)
        page = HistoryPage(
            stream.read(now_s, limit, None if since is None else since.offset, reverse),
            stream.position,
            since is None or stream.continues(now_s, since, reverse),
        )
        self._streams.enforce_limit()  # Last, because this may remove the new position.
        return page

    async def positions(self, channels: Mapping[str, HistoryOptions]) -> dict[str, StreamPosition]:
        """See `history`: also the new positions may be removed before this returns."""
        now_s, get_or_create = self._clock.now_s(), self._streams.get_or_create
        positions = {
            channel: get_or_create(channel, options.meta_ttl_s, now_s).position for channel, options in channels.items()
        }
        self._streams.enforce_limit()
        return positions

    async def remove_history(self, channel: str) -> None:
        self._streams.clear(channel)

    def forget(self, channel: str) -> None:
        """Removes the stream of the channel with its position, as a server that loses its data does. For tests of
        recovery; clients can only remove the publications."""
        self._streams.forget(channel)

    def transfer(self) -> MemoryTransfer:
        """See `engines.transfer.Transferable`."""
        return MemoryTransfer(self._streams, self._idempotency, self._clock)

    # --- helpers -------------------------------------------------------------------------------------------------

    def _store(
        self,
        stream: Stream,
        data: Raw,
        options: HistoryOptions,
        info: ClientInfo | None,
        tags: Mapping[str, str] | None,
        now_s: float,
    ) -> Publication:
        offset = stream.top + 1
        publication = Publication(
            data.copy(),  # A decoded payload is a view that keeps its whole frame in memory.
            info,
            offset,
            dict(tags) if tags else None,
            stream.epoch if offset == 1 else "",
        )
        self._streams.store(stream, publication, options, now_s)
        return publication

    def _announce_queued(self, events: BrokerEvents) -> None:
        self._announcing = True
        try:
            while self._queued:
                channel, announcement = self._queued.popleft()
                if channel in self._attached:
                    announcement(events)
        finally:
            self._announcing = False
            if self._queued:  # A callback raised, against its contract. The other announcements must still be made.
                self._announce_queued(events)

    def _sweep(self, now_s: float, budget: int) -> bool:
        self._publishes_since_sweep = 0
        more_streams = self._streams.sweep(now_s, budget)
        more_outcomes = self._idempotency.sweep(now_s, budget)
        return more_streams or more_outcomes


def _member_announcement(channel: str, change: MemberChange) -> Callable[[BrokerEvents], None]:
    info = change.info
    if change.joined:
        return lambda events: events.on_join(channel, info)
    return lambda events: events.on_leave(channel, info)
