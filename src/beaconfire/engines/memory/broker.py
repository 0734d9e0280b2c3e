"""The memory engine's broker: history in this process, announcements to its one node."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from msgspec import Raw, Struct

from beaconfire.base.clock import Clock
from beaconfire.engines.memory.outcomes import Outcomes
from beaconfire.engines.memory.streams import Stream, Streams
from beaconfire.engines.memory.tables import shrink
from beaconfire.engines.port import (
    BrokerEvents,
    HistoryOptions,
    HistoryPage,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication

IDEMPOTENCY_KEYS_MAX = 300_000
"""Keys remembered at once: a thousand keyed publishes a second, for as long as a key lives."""

HISTORY_BYTES_MAX = 1024**3
"""What streams and publications may take, unless the settings say otherwise."""

SWEEP_BUDGET = 1000
"""What one `sweep` drops at most of each kind: a few milliseconds, at one or two microseconds apiece."""

_PUBLISHES_PER_SWEEP = 64
_PUBLISH_SWEEP_BUDGET = 256
"""Publishing sweeps in passing, so that garbage does not outrun it: each publish leaves at most one of a kind."""

_NO_POSITION = StreamPosition(0, "")


class MemoryBrokerStatistics(Struct, frozen=True):
    """A snapshot. Expired things count until they are swept; `bytes` is what streams and publications cost together.

    `idempotency_keys_forgotten_total` only rises: keys that gave way before their time, because of the limit.
    """

    attached_channels: int
    streams: int
    publications: int
    bytes: int
    idempotency_keys: int
    idempotency_keys_forgotten_total: int


class MemoryBroker:
    """Implements `Broker`. Nothing here ever suspends, so each call is one atomic step on the loop's thread.

    Announcing may lead to more publishing. Then the inner call stores at once and leaves its announcement to the
    outer one, which goes on until none is left: order holds in every channel, and the stack does not grow.
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
        self._streams = Streams(new_epoch, self._is_attached, history_bytes_max, on_history_full)
        self._outcomes = Outcomes(idempotency_keys_max)
        self._attached: dict[str, None] = {}
        self._events: BrokerEvents | None = None
        self._waiting: deque[tuple[str, Callable[[BrokerEvents], None]]] = deque()
        self._announcing = False
        self._publishes_since_sweep = 0

    # --- life ----------------------------------------------------------------------------------------------------

    async def start(self, events: BrokerEvents) -> None:
        """Raises RuntimeError if it has been started: there is one node to announce to."""
        if self._events is not None:
            raise RuntimeError("the memory broker serves a node already")
        self._events = events

    async def stop(self) -> None:
        """Idempotent. Streams stay, for a later start; attachments do not, so nothing more is announced."""
        self._events = None
        attached, self._attached = self._attached, {}
        for channel in attached:
            self._streams.on_detached(channel)

    def sweep(self) -> bool:
        """Gives back the memory of what is expired, within a budget. To be called every second or so.

        True if there is more: then again after letting others run.
        """
        return self._sweep(self._clock.now_s(), SWEEP_BUDGET)

    def statistics(self) -> MemoryBrokerStatistics:
        return MemoryBrokerStatistics(
            attached_channels=len(self._attached),
            streams=len(self._streams),
            publications=self._streams.publications,
            bytes=self._streams.bytes,
            idempotency_keys=len(self._outcomes),
            idempotency_keys_forgotten_total=self._outcomes.forgotten_total,
        )

    # --- publish and subscribe -----------------------------------------------------------------------------------

    async def attach(self, channel: str) -> None:
        """Raises RuntimeError unless started."""
        if self._events is None:
            raise RuntimeError("the memory broker is not started: there is no node to announce to")
        self._attached[channel] = None

    async def detach(self, channel: str) -> None:
        """Nothing in the channel is announced after this, not even what was published before."""
        if channel in self._attached:
            del self._attached[channel]
            shrink(self._attached)
            self._streams.on_detached(channel)

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        """As `Broker.publish`. The announcement is over when this returns, unless it is called during another one."""
        now_s = self._clock.now_s()
        self._publishes_since_sweep += 1
        if self._publishes_since_sweep >= _PUBLISHES_PER_SWEEP:
            self._sweep(now_s, _PUBLISH_SWEEP_BUDGET)
        key = options.idempotency_key
        if key:
            first = self._outcomes.find(channel, key, now_s)
            if first is not None:
                return PublishOutcome(first, "idempotency")
        if options.history.enabled:
            stream = self._streams.use(channel, options.history.meta_ttl_s, now_s)
            suppressed = options.version > 0 and not stream.advance_version(options.version, options.version_epoch)
            if not suppressed:
                publication = self._store(stream, data, options.history, info, tags, now_s)
            position = stream.position
        else:
            suppressed = False
            publication = Publication(data, info, 0, dict(tags) if tags else None)
            position = _NO_POSITION
        if key:
            self._outcomes.remember(channel, key, position, now_s)
        if suppressed:
            return PublishOutcome(position, "version")
        epoch, exclude, delta = position.epoch, options.exclude, options.delta
        self._announce(channel, lambda events: events.on_publication(channel, publication, epoch, exclude, delta))
        return PublishOutcome(position)

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        self._announce(channel, lambda events: events.on_join(channel, info))

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        self._announce(channel, lambda events: events.on_leave(channel, info))

    # --- history -------------------------------------------------------------------------------------------------

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        """As `Broker.history`. What is kept was decided at publishing, so only `options.meta_ttl_s` counts here.

        The position of a channel to which nobody is attached may be forgotten by the time that this returns, if there
        is no room for one more: then the channel has another epoch when it is used again."""
        now_s = self._clock.now_s()
        stream = self._streams.use(channel, options.meta_ttl_s, now_s)
        page = HistoryPage(stream.read(now_s, limit, None if since is None else since.offset, reverse), stream.position)
        self._streams.make_room()  # afterwards, because a new position may be the one that has to go
        return page

    async def remove_history(self, channel: str) -> None:
        self._streams.clear(channel)

    def _is_attached(self, channel: str) -> bool:
        return channel in self._attached

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
            data.copy(),  # A decoded payload is a view that would keep its whole frame in memory.
            info,
            offset,
            dict(tags) if tags else None,
            stream.epoch if offset == 1 else "",
        )
        self._streams.store(stream, publication, options, now_s)
        return publication

    def _announce(self, channel: str, announcement: Callable[[BrokerEvents], None]) -> None:
        if channel not in self._attached:
            return
        self._waiting.append((channel, announcement))
        if not self._announcing:
            self._announce_waiting()

    def _announce_waiting(self) -> None:
        assert self._events is not None, "nothing is attached unless started"
        events = self._events
        self._announcing = True
        try:
            while self._waiting:
                channel, announcement = self._waiting.popleft()
                if channel in self._attached:
                    announcement(events)
        finally:
            self._announcing = False
            if self._waiting:  # A callback raised, against its contract; that must not cost the others theirs.
                self._announce_waiting()

    def _sweep(self, now_s: float, budget: int) -> bool:
        self._publishes_since_sweep = 0
        more_streams = self._streams.sweep(now_s, budget)
        more_outcomes = self._outcomes.sweep(now_s, budget)
        return more_streams or more_outcomes
