"""This node's table of subscriptions, and fan-out: one publication to every local subscriber.

Theory of operation. A publication is not sent when it arrives: it joins its channel's batch, and on the next turn of
the event loop the hub hands every batch to the outboxes of the channel's subscribers. A batch is encoded and framed
once per wire, however many sessions share it, so the cost of one more subscriber is a comparison and an append.

If one channel alone has something to say in a turn and is not too large, its frames need not wait in outboxes for
the flusher: they are aimed at the sockets of all whose outbox is empty, and fired when the walk is over. That saves
a second walk over objects that are cold again by then, a good twentieth of a delivery.

The common case is a batch whose offsets rise by one and that everybody gets whole (`uniform`). Anything else (an
excluded client, joins that only some want to hear, a subscriber still catching up, a hole) is selected item by item,
and equal selections still share one frame.

Invariants: nothing here awaits or calls out while a table is walked. Joining and leaving cost the same whatever the
number of subscribers, or one client that comes and goes could keep the node busy. A channel is in the table exactly
while it has subscribers. Per channel, subscribers get items in the order in which they were given to the hub. A
subscription added now gets nothing that was published before.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from beaconfire.errors import PayloadError
from beaconfire.events import BatchFannedOut, EventSink, InternalError
from beaconfire.messages import JoinPush, LeavePush, Publication, PublicationPush
from beaconfire.outbox import Flusher, Volley
from beaconfire.protocols.base import Frame, Payload, Wire
from beaconfire.subscription import ANY, Gap, Phase, Subscription

DIRECT_MAX = 1024
"""Subscribers of a channel that is written on the spot: some 7 ms of writing. Larger ones go out in slices."""


class Item:
    """One thing to deliver, and its encodings so far."""

    __slots__ = ("_payloads", "epoch", "exclude", "offset", "push")

    def __init__(
        self, push: PublicationPush | JoinPush | LeavePush, offset: int, epoch: str, exclude: Sequence[str]
    ) -> None:
        self.push = push
        self.offset = offset
        self.epoch = epoch
        self.exclude = exclude
        self._payloads: dict[str, Payload] = {}

    def payload(self, wire: Wire) -> Payload:
        """Encoded once per codec. Raises PayloadError if this wire cannot express it."""
        codec = wire.codec
        payload = self._payloads.get(codec.name)
        if payload is None:
            payload = self._payloads[codec.name] = codec.encode_push(self.push)
        return payload


class Batch:
    """The items of one channel in one turn, and their frames per wire."""

    __slots__ = ("_selections", "epoch", "first", "frames", "items", "last", "uniform")

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.first = items[0].offset
        self.last = items[-1].offset
        self.epoch = items[0].epoch
        if len(items) == 1:  # mostly, and then there is nothing to compare
            self.uniform = not items[0].exclude and type(items[0].push) is PublicationPush
        else:
            self.uniform = all(
                item.offset == (self.first + index if self.first else 0)
                and item.epoch == self.epoch
                and not item.exclude
                and type(item.push) is PublicationPush
                for index, item in enumerate(items)
            )
        self.frames: dict[Wire, Frame] = {}
        self._selections: dict[tuple[Wire, tuple[int, ...]], Frame] = {}

    def frame(self, wire: Wire) -> Frame:
        """All items in one frame, kept in `frames`. Raises PayloadError."""
        frame = self.frames[wire] = wire.pack([item.payload(wire) for item in self.items])
        return frame

    def selection(self, wire: Wire, indexes: tuple[int, ...]) -> Frame:
        """Some of the items, at least one, in one frame. Raises PayloadError."""
        key = (wire, indexes)
        frame = self._selections.get(key)
        if frame is None:
            frame = self._selections[key] = wire.pack([self.items[index].payload(wire) for index in indexes])
        return frame


class Room:
    """A channel with subscribers. Keyed by client, since a session is in a channel once."""

    __slots__ = ("namespace", "pending", "subscriptions")

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.subscriptions: dict[str, Subscription] = {}
        self.pending: list[Item] = []


class HubStatistics(Struct, frozen=True):
    """`delivered_total` counts messages put into outboxes by fan-out."""

    channels: int
    subscriptions: int
    delivered_total: int


class Hub:
    """Who is in which channel here, and the way to reach them."""

    def __init__(
        self,
        schedule: Callable[[Callable[[], None]], object],
        now_s: Callable[[], float],
        events: EventSink,
        hold_limit_bytes: int,
        flusher: Flusher,
    ) -> None:
        """`schedule` runs a callable on the next turn of the event loop. `hold_limit_bytes` bounds what one
        subscription keeps while it catches up."""
        self._schedule = schedule
        self._now_s = now_s
        self._events = events
        self._hold_limit_bytes = hold_limit_bytes
        self._flusher = flusher
        self._rooms: dict[str, Room] = {}
        self._dirty: list[str] = []
        self._scheduled = False
        self._delivered_total = 0
        self._subscriptions = 0

    # Membership

    def add(self, subscription: Subscription) -> None:
        """Adds a subscription in whatever phase. What is pending was published before: it is for the others."""
        room = self._rooms.get(subscription.channel)
        if room is None:
            room = self._rooms[subscription.channel] = Room(subscription.namespace.name)
        subscription.skip = len(room.pending)
        assert subscription.client not in room.subscriptions, "a session is in a channel once"
        room.subscriptions[subscription.client] = subscription
        self._subscriptions += 1

    def remove(self, subscription: Subscription) -> bool:
        """Takes it out and ends it; it still gets what is pending. True if the channel is now empty. Idempotent."""
        room = self._rooms.get(subscription.channel)
        if room is None or room.subscriptions.get(subscription.client) is not subscription:
            return False
        if room.pending and subscription.phase is Phase.LIVE:
            try:
                self._deliver_selected(Batch(room.pending), subscription)
            except (Gap, PayloadError):
                pass  # it is leaving: nobody is left to be told
        subscription.end()
        del room.subscriptions[subscription.client]
        self._subscriptions -= 1
        if room.subscriptions:
            return False
        del self._rooms[subscription.channel]
        return True

    def has_subscribers(self, channel: str) -> bool:
        return channel in self._rooms

    def count(self, channel: str) -> int:
        room = self._rooms.get(channel)
        return len(room.subscriptions) if room is not None else 0

    def channels(self) -> Iterator[tuple[str, int]]:
        """Every channel with its number of subscribers here."""
        for channel, room in self._rooms.items():
            yield channel, len(room.subscriptions)

    def subscribers(self, channel: str) -> list[Subscription]:
        room = self._rooms.get(channel)
        return list(room.subscriptions.values()) if room is not None else []

    def find(self, channel: str, client: str) -> Subscription | None:
        room = self._rooms.get(channel)
        return room.subscriptions.get(client) if room is not None else None

    def statistics(self) -> HubStatistics:
        return HubStatistics(len(self._rooms), self._subscriptions, self._delivered_total)

    # Fan-out

    def publish(self, channel: str, publication: Publication, epoch: str, exclude: Sequence[str] = ()) -> None:
        """Queues a publication for everyone in the channel but `exclude` (client ids)."""
        room = self._rooms.get(channel)
        if room is not None:
            self._queue(channel, room, Item(PublicationPush(channel, publication), publication.offset, epoch, exclude))

    def announce(self, push: JoinPush | LeavePush) -> None:
        """Queues a join or leave for those in the channel who hear them."""
        room = self._rooms.get(push.channel)
        if room is not None:
            self._queue(push.channel, room, Item(push, 0, "", ()))

    def _queue(self, channel: str, room: Room, item: Item) -> None:
        if not room.pending:
            self._dirty.append(channel)
            if not self._scheduled:
                self._scheduled = True
                self._schedule(self.flush)
        room.pending.append(item)

    def flush(self) -> None:
        """Hands every pending batch to the outboxes."""
        self._scheduled = False
        dirty, self._dirty = self._dirty, []
        alone = len(dirty) == 1
        for channel in dirty:
            room = self._rooms.get(channel)
            if room is not None and room.pending:
                try:
                    self._fan_out(channel, room, alone and len(room.subscriptions) <= DIRECT_MAX)
                except Exception:  # noqa: BLE001 - a bug in one channel's codec or sink must not silence the others
                    self._events.emit(InternalError("fan-out", traceback.format_exc()))

    def _fan_out(self, channel: str, room: Room, directly: bool) -> None:
        started_s = self._now_s()
        batch = Batch(room.pending)
        room.pending = []
        volley = Volley() if directly else None
        gaps: list[tuple[Subscription, str]] = []
        undeliverable: list[Subscription] = []
        try:
            self._hand_out(batch, room, volley, gaps, undeliverable)
        finally:  # whatever breaks the walk: those it has passed stand behind these frames already
            if volley is not None:
                self._flusher.fire(volley)
        size, subscribers = len(batch.items), len(room.subscriptions)
        self._events.emit(BatchFannedOut(room.namespace, size, subscribers, self._now_s() - started_s))
        for subscription, reason in gaps:
            subscription.owner.on_gap(subscription, reason)
        for subscription in undeliverable:
            subscription.owner.on_undeliverable(subscription)

    def _hand_out(
        self,
        batch: Batch,
        room: Room,
        volley: Volley | None,
        gaps: list[tuple[Subscription, str]],
        undeliverable: list[Subscription],
    ) -> None:
        """The walk, and the hottest lines of the house: what is looked up here is looked up once per delivery."""
        first, epoch, uniform = batch.first, batch.epoch, batch.uniform
        frames, after = batch.frames, batch.last + 1
        passed = 0
        for subscription in room.subscriptions.values():
            try:
                expected = subscription.expected
                if (
                    uniform
                    and not subscription.skip
                    and (expected == ANY or (expected == first != 0 and subscription.epoch == epoch))
                ):
                    wire = subscription.wire
                    frame = frames.get(wire) or batch.frame(wire)
                    if volley is None:
                        subscription.outbox.append(frame)
                    else:
                        subscription.outbox.aim(frame, volley)
                    if expected != ANY:
                        subscription.expected = after
                    passed += 1
                else:
                    self._deliver_selected(batch, subscription)
            except Gap as gap:
                subscription.end()
                gaps.append((subscription, str(gap)))
            except PayloadError:
                undeliverable.append(subscription)
        self._delivered_total += passed * len(batch.items)

    def _deliver_selected(self, batch: Batch, subscription: Subscription) -> None:
        """The general case: decides item by item. Raises PayloadError, and Gap where the position shows a hole."""
        if subscription.phase is Phase.ENDED:
            return
        live = subscription.phase is Phase.LIVE
        indexes: list[int] = []
        skip, subscription.skip = subscription.skip, 0
        for index in range(skip, len(batch.items)):
            item = batch.items[index]
            wanted = subscription.client not in item.exclude
            if not isinstance(item.push, PublicationPush):
                wanted = live and subscription.options.hears_announcements
            elif not live:
                subscription.hold(item.push.pub, item.epoch, wanted, self._hold_limit_bytes)
                wanted = False
            elif item.offset and subscription.expected != ANY:
                wanted = subscription.advance(item.offset, item.epoch) and wanted
            if wanted:
                indexes.append(index)
        if indexes:
            subscription.outbox.append(batch.selection(subscription.wire, tuple(indexes)))
            self._delivered_total += len(indexes)
