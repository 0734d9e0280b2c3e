"""A broker across a network: it announces late, and can lose its link and its streams."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence

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
from beaconfire.testing.calls import LIFETIME_CALLS

CHANNELS = ("a", "b")

FAILING_BEFORE = frozenset({"attach", "detach", "history", "positions", "announce"})
FAILING_AFTER = frozenset({"attach", "detach"})
"""Calls that may fail before and after their effect. Those of the presence store may do both. An announcement that is
made and then fails would be made again, and clients would see the same join twice."""


class RandomSteps:
    """Implements `beaconfire.testing.CallControl`: most calls wait before and after their effect for `take_one`."""

    def __init__(self, rng: random.Random, failures: float = 0.0) -> None:
        """`failures` is the probability that a call fails that may fail."""
        self._rng = rng
        self.failures = failures
        self.waiting: list[asyncio.Future[None]] = []

    async def before(self, call: str, subject: str) -> None:
        await self._wait(call)
        self._fail(call, FAILING_BEFORE)

    async def after(self, call: str, subject: str) -> None:
        for _ in range(self._rng.choice((1, 1, 6)) if call == "history" else 1):
            await self._wait(call)  # much may be published between a slow read and its end
        self._fail(call, FAILING_AFTER)

    def _fail(self, call: str, failing: frozenset[str]) -> None:
        if self.failures and (call in failing or call.startswith("presence_")) and self._rng.random() < self.failures:
            raise EngineUnavailable(f"{call}: the simulation lets this call fail")

    async def _wait(self, call: str) -> None:
        if call in LIFETIME_CALLS or self._rng.random() < 0.25:
            return  # some calls are fast
        step: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(step)
        await step

    def take_one(self) -> None:
        """Lets a random call continue."""
        step = self.waiting.pop(self._rng.randrange(len(self.waiting)))
        step.set_result(None)


class LossyBroker:
    """Keeps streams of bounded size. Announcements wait in order for `announce_one`; a lost link drops them."""

    def __init__(self, sparse: random.Random | None = None) -> None:
        """Offsets rise by one, or, with `sparse`, by one or two."""
        self._sparse = sparse
        self._events: BrokerEvents | None = None
        self.attached: set[str] = set()
        self.streams: dict[str, list[Publication]] = {}
        self.epochs: dict[str, str] = {}
        self.tops: dict[str, int] = {}
        self.announcements: deque[tuple[str, Callable[[BrokerEvents], None], bool]] = deque()
        """The channel of each announcement, what the node is called with, and whether it is a join or leave."""
        self.down: set[str] = set()
        """The channels whose link is lost."""
        self.links_lost = 0
        self.streams_lost: set[str] = set()
        self.published: dict[tuple[str, str, int], Publication] = {}
        """Every publication of the simulation, by channel, epoch and offset."""
        self.predecessors: dict[tuple[str, str, int], int] = {}
        """The offset before that of each publication, by channel, epoch and offset."""
        self._epoch_numbers = itertools.count()

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

    def lose_stream(self, channel: str) -> None:
        """Forgets the stream of a channel. Its next epoch starts at offset 0."""
        self.streams_lost.add(channel)
        self.streams.pop(channel, None)
        self.tops.pop(channel, None)
        self.epochs.pop(channel, None)

    def position(self, channel: str) -> StreamPosition:
        if channel not in self.epochs:
            self.epochs[channel] = f"epoch{next(self._epoch_numbers)}"
        return StreamPosition(self.tops.get(channel, 0), self.epochs[channel])

    # engines.port.Broker

    async def start(self, events: BrokerEvents) -> None:
        self._events = events

    async def stop(self) -> None:
        self._events = None

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
        top, epoch = self.position(channel)
        offset = top + (1 if self._sparse is None else self._sparse.randint(1, 2))
        publication = Publication(data, info, offset, dict(tags or {}))
        self.published[channel, epoch, offset] = publication
        self.predecessors[channel, epoch, offset] = top
        self.tops[channel] = offset
        stream = self.streams.setdefault(channel, [])
        stream.append(publication)
        del stream[: max(0, len(stream) - options.history.size)]
        self._announce(
            channel,
            lambda events: events.on_publication(channel, publication, epoch, top, options.exclude, options.delta),
        )
        return PublishOutcome(StreamPosition(offset, epoch))

    async def announce(self, channel: str, changes: Sequence[MemberChange]) -> None:
        for change in changes:
            self._announce(channel, _member_announcement(channel, change), True)

    def _announce(self, channel: str, announcement: Callable[[BrokerEvents], None], is_member: bool = False) -> None:
        if channel in self.attached:
            self.announcements.append((channel, announcement, is_member))

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        assert since is None or not reverse, "no caller reads backwards from a position"
        position = self.position(channel)
        kept = [p for p in self.streams.get(channel, []) if since is None or p.offset > since.offset]
        first = kept[0].offset if kept else 0
        predecessor = self.predecessors.get((channel, position.epoch, first), position.offset)
        continues = since is None or continues_from(since, predecessor, position.epoch)
        if reverse:
            kept.reverse()
        return HistoryPage(kept[:limit] if limit >= 0 else kept, position, continues)

    async def positions(self, channels: Mapping[str, HistoryOptions]) -> dict[str, StreamPosition]:
        return {channel: self.position(channel) for channel in channels}

    async def remove_history(self, channel: str) -> None:
        self.streams.pop(channel, None)


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
