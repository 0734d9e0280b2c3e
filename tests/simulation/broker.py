"""A broker across a network, for several nodes: it announces late, and can lose a node's link and its streams."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from msgspec import Raw

from beaconfire.base.errors import EngineUnavailable
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

CHANNELS = ("a", "b")

LEAP = 1000
"""How far offsets leap after a loss."""

Announcement: TypeAlias = Callable[[BrokerEvents], None]


class StreamStore:
    """Keeps streams of bounded size for all nodes, and hands announcements to their brokers."""

    def __init__(self, sparse: random.Random | None = None) -> None:
        """Offsets rise by one, or, with `sparse`, by one or two."""
        self._sparse = sparse
        self.brokers: list[LossyBroker] = []
        self.streams: dict[str, list[Publication]] = {}
        self.epochs: dict[str, str] = {}
        self.tops: dict[str, int] = {}
        self.streams_lost: set[str] = set()
        self.published: dict[tuple[str, str, int], Publication] = {}
        """Every publication of the simulation, by channel, epoch and offset."""
        self.predecessors: dict[tuple[str, str, int], int] = {}
        """The offset before that of each publication, by channel, epoch and offset."""
        self.lost: dict[tuple[str, str, int], Publication] = {}
        """Publications that were announced, and that the store has lost. They are not in `published` any more."""
        self._leaps: dict[str, int] = {}
        """The next offset of channels that have lost their newest publications."""
        self._gaps: dict[tuple[str, str], list[tuple[int, int]]] = {}
        """Pairs of offsets between which the stream has nothing and never had, by channel and epoch."""
        self._epoch_numbers = itertools.count()

    def connect(self) -> LossyBroker:
        """The broker of one more node."""
        broker = LossyBroker(self)
        self.brokers.append(broker)
        return broker

    def lose_stream(self, channel: str) -> None:
        """Forgets the stream of a channel. Its next epoch starts at offset 0."""
        self.streams_lost.add(channel)
        self.streams.pop(channel, None)
        self.tops.pop(channel, None)
        self.epochs.pop(channel, None)
        self._leaps.pop(channel, None)

    def lose_newest(self, channel: str, count: int) -> None:
        """The store continues on a copy that lacks the newest publications of a channel. Their offsets are not used
        again: the next offset is far above them."""
        top, epoch = self.position(channel)
        stream = self.streams.get(channel, [])
        for publication in reversed(stream[-count:]):
            key = (channel, epoch, publication.offset)
            self.lost[key] = self.published.pop(key)
            self.tops[channel] = self.predecessors[key]
        del stream[-count:]
        self._leaps[channel] = max(top + LEAP, self._leaps.get(channel, 0))

    def is_lost(self, channel: str, position: StreamPosition) -> bool:
        """Whether the publication at this position was lost."""
        return (channel, position.epoch, position.offset) in self.lost

    def has_lost_after(self, channel: str, position: StreamPosition) -> bool:
        """Whether the publication at this position, or a later one of its epoch, was lost."""
        return any(lost[:2] == (channel, position.epoch) and lost[2] >= position.offset for lost in self.lost)

    def is_between(self, channel: str, position: StreamPosition) -> bool:
        """Whether the stream has leapt over this position. Directly before a publication is where a reader begins that
        does not know the predecessor."""
        gaps = self._gaps.get((channel, position.epoch), ())
        return any(low < position.offset < high - 1 for low, high in gaps)

    def position(self, channel: str) -> StreamPosition:
        if channel not in self.epochs:
            self.epochs[channel] = f"epoch{next(self._epoch_numbers)}"
        return StreamPosition(self.tops.get(channel, 0), self.epochs[channel])

    def append(
        self, channel: str, data: Raw, info: ClientInfo | None, tags: Mapping[str, str], size: int
    ) -> tuple[Publication, str, int]:
        """Stores a publication, and keeps at most `size` of them. Returns it, its epoch and the offset before it."""
        top, epoch = self.position(channel)
        offset = self._leaps.pop(channel, 0)
        if offset:
            self._gaps.setdefault((channel, epoch), []).append((top, offset))
        else:
            offset = top + (1 if self._sparse is None else self._sparse.randint(1, 2))
        publication = Publication(data, info, offset, dict(tags))
        self.published[channel, epoch, offset] = publication
        self.predecessors[channel, epoch, offset] = top
        self.tops[channel] = offset
        stream = self.streams.setdefault(channel, [])
        stream.append(publication)
        del stream[: max(0, len(stream) - size)]
        return publication, epoch, top

    def announce(self, origin: LossyBroker, channel: str, announcement: Announcement, is_member: bool = False) -> None:
        """Puts an announcement on its way to every node. `origin` is the broker of the node that has caused it."""
        for broker in self.brokers:
            broker.queue(channel, announcement, is_member)


class LossyBroker:
    """Implements `Broker` for one node. Announcements wait in order for `announce_one`; a lost link drops them."""

    def __init__(self, store: StreamStore) -> None:
        self.store = store
        self._events: BrokerEvents | None = None
        self.attached: set[str] = set()
        self.announcements: deque[tuple[str, Announcement, bool]] = deque()
        """The channel of each announcement, what the node is called with, and whether it is a join or leave."""
        self.down: set[str] = set()
        """The channels whose link is lost."""
        self.links_lost = 0

    def queue(self, channel: str, announcement: Announcement, is_member: bool) -> None:
        """An announcement comes from the store. It is dropped unless the node has attached the channel."""
        if channel in self.attached:
            self.announcements.append((channel, announcement, is_member))

    def announce_one(self) -> None:
        _, announcement, _ = self.announcements.popleft()
        assert self._events is not None
        announcement(self._events)

    def lose_link(self, channels: Sequence[str] | None) -> None:
        """Ends the attachments of these channels, None: of all channels, and drops announcements on their way."""
        lost = set(CHANNELS if channels is None else channels)
        self.links_lost += 1
        self.down |= lost
        self.attached -= lost
        self.announcements = deque(entry for entry in self.announcements if entry[0] not in lost)
        assert self._events is not None
        self._events.on_link_down(channels)

    def restore_link(self) -> None:
        """All channels that have lost their link can be attached again."""
        channels = None if len(self.down) == len(CHANNELS) else sorted(self.down)
        self.down.clear()
        assert self._events is not None
        self._events.on_link_up(channels)

    # engines.port.Broker

    async def start(self, events: BrokerEvents) -> None:
        self._events = events

    async def stop(self) -> None:
        self._events = None
        self.attached.clear()
        self.announcements.clear()

    async def ping(self) -> None:
        pass

    async def attach(self, channels: Sequence[str]) -> None:
        if not self.down.isdisjoint(channels):
            raise EngineUnavailable("attach: no link")
        self.attached.update(channels)

    async def detach(self, channels: Sequence[str]) -> None:
        """Announcements of publications that are on their way are still made. Those of joins and leaves are not: later
        subscribers would see a join, but not the leave that was announced in between."""
        self.attached.difference_update(channels)
        self.announcements = deque(entry for entry in self.announcements if entry[0] not in channels or not entry[2])

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        publication, epoch, top = self.store.append(channel, data, info, tags or {}, options.history.size)
        self.store.announce(
            self,
            channel,
            lambda events: events.on_publication(channel, publication, epoch, top, options.exclude, options.delta),
        )
        return PublishOutcome(StreamPosition(publication.offset, epoch))

    async def announce(self, channel: str, changes: Sequence[MemberChange]) -> None:
        for change in changes:
            self.store.announce(self, channel, _member_announcement(channel, change), True)

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        assert since is None or not reverse, "no caller reads backwards from a position"
        store = self.store
        position = store.position(channel)
        kept = [p for p in store.streams.get(channel, []) if since is None or p.offset > since.offset]
        first = kept[0].offset if kept else 0
        predecessor = store.predecessors.get((channel, position.epoch, first), position.offset)
        continues = since is None or (
            since.offset <= position.offset
            and not store.is_between(channel, since._replace(epoch=since.epoch or position.epoch))
            and continues_from(since, predecessor, position.epoch)
        )
        if reverse:
            kept.reverse()
        return HistoryPage(kept[:limit] if limit >= 0 else kept, position, continues)

    async def positions(self, channels: Mapping[str, HistoryOptions]) -> dict[str, StreamPosition]:
        return {channel: self.store.position(channel) for channel in channels}

    async def remove_history(self, channel: str) -> None:
        self.store.streams.pop(channel, None)


def continues_from(since: StreamPosition, predecessor: int, epoch: str) -> bool:
    """Whether nothing is missing between `since` and the first publication after it in history.

    `predecessor` is the offset before this publication, or the top of the stream if there is none. `epoch` is that of
    the stream.
    """
    return since.epoch in ("", epoch) and since.offset >= predecessor


def _member_announcement(channel: str, change: MemberChange) -> Callable[[BrokerEvents], None]:
    if change.joined:
        return lambda events: events.on_join(channel, change.info)
    return lambda events: events.on_leave(channel, change.info)
