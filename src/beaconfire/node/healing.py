"""Finds the publications that this node has missed, once for each channel, and delivers them.

Theory of operation. The hub knows the position that each channel has reached on this node. A channel is *healed* after
the link of the broker was lost, if an announcement names a predecessor that has not come (a hole), and if the stream is
ahead of the channel for too long. The steps are *attach, compare, read, deliver*: attach the channel again, compare its
position with the stream, read the missing publications from history, and give them to the hub as if they had come live.
The subscribers notice nothing.

Meanwhile announcements that follow the position of the channel are delivered as usual. Others are held, and delivered
after the missing ones. Only if history does not bridge the gap, the subscriptions with a position are told.

Many channels are healed in batches. A channel whose healing fails because the engine fails is healed again later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

from beaconfire.base.backoff import Backoff
from beaconfire.base.loop import SharedSlice
from beaconfire.base.tasks import BackgroundTasks, run_all
from beaconfire.base.timers import Timers
from beaconfire.channels.attachments import Attachments
from beaconfire.channels.namespaces import Namespaces
from beaconfire.delivery.channel import LocalChannel
from beaconfire.delivery.healer import Announcement
from beaconfire.delivery.hub import Hub
from beaconfire.engines.port import Broker, HistoryPage
from beaconfire.model.events import ChannelHealed, EventSink
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication

CHANNELS_PER_BATCH: Final = 512
WORKERS_MAX: Final = 4
"""Batches that are healed at the same time."""

PAGE_MAX: Final = 64
"""Publications of one read, which are delivered without a turn of the event loop in between."""

HELD_BYTES_MAX: Final = 64 * 1024 * 1024
"""What is held for all channels together. The history of many channels may hang while announcements still come. Beyond
the limit, a channel that would hold more is given up."""

ITEM_BYTES: Final = 256
"""Roughly what a publication costs in addition to its data."""

UNKNOWN_DELAY_S: Final = 0.5
"""When a channel without a position is looked at again, because a subscription is about to give it one."""


class ChannelHealing:
    """The healing of one channel, from its start to its end."""

    __slots__ = ("again", "held", "held_bytes", "is_hole", "is_waiting", "local")

    def __init__(self, local: LocalChannel) -> None:
        self.local = local
        self.is_hole = False
        """The stream is ahead of the channel for certain."""
        self.is_waiting = False
        """The healing has failed and waits for its repetition."""
        self.again = False
        """The link was lost since the healing began, so one more must follow."""
        self.held: dict[tuple[str, int], Announcement] = {}
        """The announcements that wait, by epoch and offset, in order."""
        self.held_bytes = 0

    def hold(self, announcement: Announcement) -> int:
        """Returns the size of the announcement in bytes."""
        publication = announcement.publication
        self.is_hole = True
        self.held[announcement.epoch, publication.offset] = announcement
        held_bytes = size(publication)
        self.held_bytes += held_bytes
        return held_bytes


class Healing:
    """Implements `delivery.healer.Healer`."""

    def __init__(
        self,
        hub: Hub,
        attachments: Attachments,
        broker: Broker,
        namespaces: Namespaces,
        background: BackgroundTasks,
        slice_: SharedSlice,
        timers: Timers,
        backoff: Backoff,
        events: EventSink,
        limit_bytes: int,
    ) -> None:
        """`limit_bytes` bounds what is held for one channel, and what is delivered to bridge one gap. A client could
        not take more at once; beyond the limit it recovers in pieces, at its own speed."""
        self._hub = hub
        self._attachments = attachments
        self._broker = broker
        self._namespaces = namespaces
        self._background = background
        self._slice = slice_
        self._timers = timers
        self._backoff = backoff
        self._events = events
        self._limit_bytes = limit_bytes
        self._healings: dict[str, ChannelHealing] = {}
        self._held_bytes = 0
        """What is held for all of them."""
        self._queue: deque[str] = deque()
        """Channels whose healing has not started. They are in `_healings`."""
        self._backlogs: deque[Iterator[str]] = deque()
        """Channels to heal after the link was lost. They are not in `_healings` yet, because they may be many."""
        self._workers = 0
        self._failures = 0
        """Batches in a row that have failed."""
        self._flushed = ""
        """The channel whose held announcements are being delivered."""
        self._must_repeat = False
        """This channel must be healed once more."""
        self._is_stopped = False

    # What starts a healing

    def heal_all(self, channels: Sequence[str] | None) -> None:
        """Heals these channels after the link of the broker was lost and is back, None: all channels of this node."""
        if self._is_stopped:
            return
        if channels is None:
            self._backlogs.clear()
            channels = self._hub.channel_names()
        for channel in self._healings if len(self._healings) < len(channels) else channels:
            if (healing := self._healings.get(channel)) is not None:
                healing.again = True
        self._backlogs.append(iter(channels))
        for _ in range(WORKERS_MAX):
            self._start()

    def heal(self, channel: str) -> None:
        """Heals one channel, unless that happens already."""
        if self._begin(channel) is not None:
            self._start()

    def on_hole(self, channel: str, announcement: Announcement) -> None:
        if channel == self._flushed:
            self._on_hole_after_healing(channel, announcement)
            return
        healing = self._healings.get(channel)
        if healing is None or healing.local is not self._hub.find_channel(channel):
            healing = self._begin(channel)
        if healing is None:
            return  # the node is stopping
        self._held_bytes += healing.hold(announcement)
        if healing.held_bytes > self._limit_bytes or self._held_bytes > HELD_BYTES_MAX:
            self._give_up(channel, healing, "too many publications came while missing ones were read")
        else:
            self._start()

    def _on_hole_after_healing(self, channel: str, announcement: Announcement) -> None:
        """History has not bridged the gap before a held announcement."""
        local = self._hub.find_channel(channel)
        if local is not None and announcement.epoch != local.epoch:
            # The announcement is either of a stream that was lost before the healing, or of a newer one. Then the next
            # healing finds the newer one.
            self._must_repeat = True
            return
        self._mark_gap(channel, "history does not contain all publications before an announcement")
        self._publish(channel, announcement)

    def stop(self) -> None:
        """No healing starts any more."""
        self._is_stopped = True
        self._backlogs.clear()
        self._queue.clear()

    def __len__(self) -> int:
        """The number of channels that are being healed, or wait for it one by one."""
        return len(self._healings)

    def _begin(self, channel: str) -> ChannelHealing | None:
        """A new healing in the queue. None if there is one, or if the channel has no subscribers."""
        local = self._hub.find_channel(channel)
        healing = self._healings.get(channel)
        if local is None or self._is_stopped or (healing is not None and healing.local is local):
            return None
        self._queue.append(channel)
        return self._replace(channel, local)

    def _replace(self, channel: str, local: LocalChannel) -> ChannelHealing:
        """A new healing instead of one whose subscribers have all left, if there is one."""
        old = self._healings.get(channel)
        if old is not None:
            self._held_bytes -= old.held_bytes
        healing = self._healings[channel] = ChannelHealing(local)
        return healing

    # Batches

    def _start(self) -> None:
        if (self._queue or self._backlogs) and self._workers < WORKERS_MAX:
            self._workers += 1
            self._background.start_engine_work(self._work())

    async def _work(self) -> None:
        try:
            while batch := self._take_batch():
                await self._heal_batch(batch)
        finally:
            self._workers -= 1

    def _take_batch(self) -> dict[str, ChannelHealing]:
        batch: dict[str, ChannelHealing] = {}
        while self._queue and len(batch) < CHANNELS_PER_BATCH:
            channel = self._queue.popleft()
            if channel in self._healings:
                batch[channel] = self._healings[channel]
        while self._backlogs and len(batch) < CHANNELS_PER_BATCH:
            channels = list(islice(self._backlogs[0], CHANNELS_PER_BATCH - len(batch)))
            if not channels:
                self._backlogs.popleft()
            for channel in channels:
                local, healing = self._hub.find_channel(channel), self._healings.get(channel)
                if local is None or (healing is not None and healing.local is local and not healing.is_waiting):
                    continue  # `heal_all` has marked the healing
                if healing is None or healing.local is not local:
                    healing = self._replace(channel, local)
                healing.is_waiting = healing.again = False
                batch[channel] = healing
        return batch

    async def _heal_batch(self, batch: Mapping[str, ChannelHealing]) -> None:
        """Heals channels, or makes their healing wait after a failure."""
        for channel, healing in batch.items():
            if not self._is_current(channel, healing):
                self._finish(channel, healing)
        batch = {channel: healing for channel, healing in batch.items() if self._is_current(channel, healing)}
        try:
            await self._attachments.attach_all(list(batch))
            attached = {
                channel: healing for channel, healing in batch.items() if self._attachments.is_attached(channel)
            }
            ahead = await self._find_ahead(attached)
            tails = (self._heal_channel(channel, attached[channel]) for channel in ahead)
            if self._background.engine_suspends:
                await run_all(tails, concurrently=True)
            else:
                for tail in tails:
                    await tail
        except Exception as error:  # noqa: BLE001 - reported; the healing is repeated
            self._background.report(error)
            failed: Sequence[str] = list(batch)
        else:
            failed = [channel for channel in batch if channel not in attached]
        if not failed:
            self._failures = 0
            return
        self._failures += 1
        self._repeat_later(failed, batch, self._backoff.delay_s(self._failures))

    def _repeat_later(self, channels: Sequence[str], batch: Mapping[str, ChannelHealing], delay_s: float) -> None:
        for channel in channels:
            batch[channel].is_waiting = True
        self._timers.after(delay_s, lambda: self._repeat(channels))

    def _repeat(self, channels: Sequence[str]) -> None:
        for channel in channels:
            healing = self._healings.get(channel)
            if healing is not None and healing.is_waiting:
                healing.is_waiting = False
                self._queue.append(channel)
        self._start()

    def _is_current(self, channel: str, healing: ChannelHealing) -> bool:
        """False after the healing was given up, and if all subscribers have left."""
        return self._healings.get(channel) is healing and self._hub.find_channel(channel) is healing.local

    # Compare

    async def _find_ahead(self, healings: Mapping[str, ChannelHealing]) -> list[str]:
        """The channels whose stream is ahead, or has lost publications that this node has received. Ends the healing of
        the others. Raises what the engine raises."""
        ahead = []
        histories = {}
        for channel, healing in healings.items():
            history = self._namespaces.resolve(channel).history
            if not self._is_current(channel, healing) or not history.enabled:
                self._finish(channel, healing)
            elif healing.local.announced is None:
                self._finish_unknown(channel, healing)
            elif healing.is_hole:
                ahead.append(channel)
            else:
                histories[channel] = history
        before = {channel: healings[channel].local.announced for channel in histories}
        tops = await self._broker.positions(histories) if histories else {}
        for channel in histories:
            healing, top = healings[channel], tops.get(channel)  # None is a defect of the engine
            if healing.is_hole or (
                top is not None and (_is_ahead(top, healing.local.announced) or _is_behind(top, before[channel]))
            ):
                ahead.append(channel)
            else:
                self._finish(channel, healing)
        return ahead

    def _finish_unknown(self, channel: str, healing: ChannelHealing) -> None:
        """Nobody has a position yet. A subscription that has read history before the link was lost gets one soon."""
        subscriptions = self._hub.subscribers(channel)
        if any(subscription.options.positioned and subscription.is_catching_up for subscription in subscriptions):
            self._repeat_later([channel], {channel: healing}, UNKNOWN_DELAY_S)
        else:
            self._finish(channel, healing)

    # Read and deliver

    async def _heal_channel(self, channel: str, healing: ChannelHealing) -> None:
        try:
            await self._read_missing(channel, healing)
        except Exception as error:  # noqa: BLE001 - reported; the healing is repeated
            self._background.report(error)
            self._failures += 1
            self._repeat_later([channel], {channel: healing}, self._backoff.delay_s(self._failures))

    async def _read_missing(self, channel: str, healing: ChannelHealing) -> None:
        """Reads the publications after the position of the channel, and delivers them, page by page."""
        history = self._namespaces.resolve(channel).history
        read_bytes = publications = 0
        bridged = True
        while self._is_current(channel, healing) and (since := healing.local.announced) is not None:
            held = len(healing.held)
            page = await self._broker.history(channel, history, PAGE_MAX, since)
            if self._background.engine_suspends:
                await self._slice.enter()
            if not self._is_current(channel, healing):
                break
            end = page.publications[-1].offset if page.publications else since.offset
            read_bytes += sum(size(publication) for publication in page.publications)
            if not page.continues or page.position.epoch != since.epoch:
                bridged = False
                await self._skip_missing(channel, healing, since, page)
                continue
            if read_bytes > self._limit_bytes or (end < page.position.offset and not page.publications):
                self._give_up(channel, healing, "too many publications were missed")
                return
            self._deliver(channel, healing, page.publications, since)
            publications += len(page.publications)
            if end >= page.position.offset and len(healing.held) == held:
                break  # otherwise the page may be older than the announcements that came during the read
        if publications and bridged:
            self._events.emit(ChannelHealed(self._namespaces.label(channel), True, publications))
        self._finish(channel, healing)

    async def _skip_missing(
        self, channel: str, healing: ChannelHealing, since: StreamPosition, page: HistoryPage
    ) -> None:
        """Tells the subscriptions that are before the first publication that history has after `since`. The healing
        continues there. `page` begins there, if it is of the same epoch."""
        history = self._namespaces.resolve(channel).history
        if page.position.epoch != since.epoch:
            page = await self._broker.history(channel, history, 1)
        if not self._is_current(channel, healing) or healing.local.announced != since:
            return
        start = page.publications[0].offset - 1 if page.publications else page.position.offset
        kept = StreamPosition(start, page.position.epoch)
        reason = "history does not contain all missed publications"
        if kept.epoch == since.epoch and kept.offset <= since.offset:
            self._give_up(channel, healing, reason)  # the engine contradicts itself
        else:
            self._mark_gap(channel, reason, kept)

    def _deliver(
        self, channel: str, healing: ChannelHealing, publications: Sequence[Publication], since: StreamPosition
    ) -> None:
        previous = since.offset
        for publication in publications:
            # Only an announcement has the clients that do not get the publication.
            announcement = healing.held.get((since.epoch, publication.offset))
            self._publish(channel, announcement or Announcement(publication, since.epoch, previous, (), False))
            previous = publication.offset

    def _publish(self, channel: str, announcement: Announcement) -> None:
        self._hub.publish(
            channel,
            announcement.publication,
            announcement.epoch,
            announcement.exclude,
            announcement.delta,
            announcement.previous,
        )

    # The end of a healing

    def _mark_gap(self, channel: str, reason: str, kept: StreamPosition | None = None) -> None:
        self._hub.mark_gap(channel, reason, kept)
        self._events.emit(ChannelHealed(self._namespaces.label(channel), False, 0))

    def _give_up(self, channel: str, healing: ChannelHealing, reason: str) -> None:
        """Tells the subscriptions with a position that publications are missing. The others get what was held."""
        self._mark_gap(channel, reason)
        self._finish(channel, healing)

    def _finish(self, channel: str, healing: ChannelHealing) -> None:
        """Delivers what was held. Does nothing if the healing is over."""
        if self._healings.get(channel) is not healing:
            return
        del self._healings[channel]
        self._held_bytes -= healing.held_bytes
        if self._hub.find_channel(channel) is not healing.local:
            return
        self._flushed, self._must_repeat = channel, healing.again
        try:
            for announcement in healing.held.values():
                self._publish(channel, announcement)
        finally:
            self._flushed = ""
        if self._must_repeat:
            self.heal(channel)


def _is_ahead(top: StreamPosition, announced: StreamPosition | None) -> bool:
    return announced is not None and (top.epoch != announced.epoch or top.offset > announced.offset)


def _is_behind(top: StreamPosition, announced: StreamPosition | None) -> bool:
    """The stream has lost its newest publications: the engine continues on a copy that lacks them."""
    return announced is not None and top.epoch == announced.epoch and top.offset < announced.offset


def size(publication: Publication) -> int:
    """Roughly the bytes that a publication costs while it waits."""
    return len(publication.data) + ITEM_BYTES
