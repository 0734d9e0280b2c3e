"""This node's table of subscriptions, and the way from one publication to every local subscriber.

Theory of operation. A publication is not sent when it arrives. It joins the pending items of its channel. On the next
turn of the event loop they are handed to the outboxes of the channel's subscribers (see `fan_out`).

Invariants: the hub never awaits, and calls no code outside `delivery` while it loops over a table. Subscribing and
unsubscribing cost the same for any number of subscribers; otherwise one client could keep the node busy by repeating
them. A channel is in the table exactly while it has subscribers. In each channel, subscribers get items in the order in
which the hub got them. A new subscription gets nothing that was published before it was added.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from beaconfire.base.errors import PayloadError
from beaconfire.base.loop import Schedule
from beaconfire.base.timers import Timers
from beaconfire.delivery.batch import Batch
from beaconfire.delivery.channel import LocalChannel
from beaconfire.delivery.fan_out import FanOut
from beaconfire.delivery.healer import Announcement, Healer
from beaconfire.delivery.item import GapMark, Item
from beaconfire.delivery.outbox import Flusher
from beaconfire.delivery.patches import Patches
from beaconfire.delivery.strategy import StrategyContext, Target
from beaconfire.delivery.subscription import Subscription
from beaconfire.model.events import EventSink, InternalError
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import JoinPush, LeavePush, PublicationPush


class HubStatistics(Struct, frozen=True):
    """The `_total` figures are those of `StrategyContext`. `delivered_total` counts the items appended to outboxes."""

    channels: int
    subscriptions: int
    delivered_total: int
    patches_total: int
    filtered_total: int
    conflated_total: int


class Hub:
    """The local subscriptions by channel."""

    def __init__(
        self,
        schedule: Schedule,
        timers: Timers,
        events: EventSink,
        hold_limit_bytes: int,
        flusher: Flusher,
        patches: Patches,
    ) -> None:
        """`hold_limit_bytes` bounds what one subscription holds while it catches up."""
        self._events = events
        self.healer: Healer | None = None
        """Gets publications after a hole. Without a healer they are delivered, and subscriptions find the gap."""
        self.on_unsubscribed: Callable[[str, Publication, str, int], None] = _ignore
        """Gets publications in channels without subscribers: channel, publication, epoch and predecessor."""
        self._channels: dict[str, LocalChannel] = {}
        self._subscriptions = 0
        self.context = StrategyContext(patches, timers, schedule, self._resume_due)
        """For the strategies of the subscriptions."""
        self.fan_out = FanOut(schedule, events, hold_limit_bytes, flusher, self.context)

    # Membership

    def add(self, subscription: Subscription) -> None:
        """Adds a subscription in any phase. It does not get items that are pending already."""
        local = self._channels.get(subscription.channel)
        if local is None:
            local = self._channels[subscription.channel] = LocalChannel(subscription.namespace.name)
        assert subscription.client not in local.subscriptions, "a session is in a channel once"
        local.add(subscription)
        self._subscriptions += 1

    def remove(self, subscription: Subscription) -> bool:
        """Delivers pending items to the subscription, ends it and removes it.

        Returns True if the channel has no subscribers left. Idempotent.
        """
        local = self._channels.get(subscription.channel)
        if local is None or local.subscriptions.get(subscription.client) is not subscription:
            return False
        if local.pending or local.walk is not None:
            self.fan_out.deliver_rest(local, subscription)
        subscription.end()
        local.remove(subscription)
        self._subscriptions -= 1
        if local.subscriptions:
            return False
        del self._channels[subscription.channel]
        return True

    def channel_names(self) -> list[str]:
        """The names of all channels with subscribers. This costs little even for very many."""
        return list(self._channels)

    def find_channel(self, channel: str) -> LocalChannel | None:
        """The channel, if it has subscribers. It is another object if all subscribers had left in between."""
        return self._channels.get(channel)

    def has_subscribers(self, channel: str) -> bool:
        return channel in self._channels

    def count(self, channel: str) -> int:
        """The number of subscriptions to the channel."""
        local = self._channels.get(channel)
        return len(local.subscriptions) if local is not None else 0

    def channels(self) -> Iterator[tuple[str, int]]:
        """Every channel with its number of subscriptions."""
        for channel, local in self._channels.items():
            yield channel, len(local.subscriptions)

    def subscribers(self, channel: str) -> list[Subscription]:
        local = self._channels.get(channel)
        return list(local.subscriptions.values()) if local is not None else []

    def find(self, channel: str, client: str) -> Subscription | None:
        local = self._channels.get(channel)
        return local.subscriptions.get(client) if local is not None else None

    def announced(self, channel: str) -> StreamPosition | None:
        """The position that the channel has reached on this node: that of the last stored publication, or, before the
        first one, the lowest position up to which a subscription has read history.

        None if neither has happened since the channel got its first subscriber, or since the last `mark_gap`.
        """
        local = self._channels.get(channel)
        return local.announced if local is not None else None

    def statistics(self) -> HubStatistics:
        context = self.context
        return HubStatistics(
            channels=len(self._channels),
            subscriptions=self._subscriptions,
            delivered_total=self.fan_out.delivered_total,
            patches_total=context.patches_total,
            filtered_total=context.filtered_total,
            conflated_total=context.conflated_total,
        )

    # Publications and other items

    def publish(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        exclude: Sequence[str],
        delta: bool,
        previous: int,
    ) -> None:
        """Adds a publication to the channel's pending items, for every subscriber except the client ids in `exclude`.

        `delta` allows patches. `previous` is the offset of the publication before this one in the stream, 0 for the
        first one. It has no meaning for a publication without an offset.
        """
        local = self._channels.get(channel)
        if local is not None:
            offset = publication.offset
            if (
                offset
                and (previous != local.announced_offset or epoch != local.epoch)
                and self._is_out_of_order(channel, local, Announcement(publication, epoch, previous, exclude, delta))
            ):
                return
            predecessor = local.note(publication, epoch)
            push = PublicationPush(channel, publication)
            item = Item(push, offset, previous, epoch, exclude, local.numbers, delta, predecessor)
            self.fan_out.add(local, item)
        else:
            self.on_unsubscribed(channel, publication, epoch, previous)

    def _is_out_of_order(self, channel: str, local: LocalChannel, announcement: Announcement) -> bool:
        """Whether the publication must not be delivered now: the channel has it already, or the healer got it, because
        publications before it are missing."""
        announced = local.announced_offset
        if announced is None or self.healer is None:
            return False
        if announcement.epoch == local.epoch:
            if announcement.publication.offset <= local.delivered_offset:
                return True
            if announcement.previous <= announced:
                return False
        self.healer.on_hole(channel, announcement)
        return True

    def announce(self, push: JoinPush | LeavePush) -> None:
        """Adds a join or leave to the channel's pending items, for the subscribers that receive them."""
        local = self._channels.get(push.channel)
        if local is not None:
            self.fan_out.add(local, Item(push, 0, 0, "", (), local.numbers))

    def mark_gap(self, channel: str, reason: str, kept: StreamPosition | None = None) -> None:
        """Tells every subscription with a position that publications are missing after those it was given so far.

        With `kept`, subscriptions at this position or after it are not told, live or with a recovery in pieces, and the
        channel is at `kept` from now on.

        This takes slices of a few milliseconds over turns of the event loop. A subscription that is added later is not
        told. A live subscription gets nothing that is published after this call, and usually nothing that is pending.
        Without `kept` the position of the channel is not known from now on.
        """
        local = self._channels.get(channel)
        if local is not None:
            local.restart(kept)
            self.fan_out.add(local, Item(GapMark(channel, reason, kept), 0, 0, "", (), local.numbers))

    # Delivery to one subscription

    def deliver_held(self, subscription: Subscription, items: Sequence[Item]) -> None:
        """Delivers the publications that `Subscription.go_live` returned, in order. Reports if they cannot be encoded.

        The strategy of the subscription applies to them.
        """
        if items:
            context, batch = self.context, Batch(items)
            context.turn_s = context.now_s()
            context.patches.refill()
            try:
                delivered = subscription.strategy.deliver(batch, batch.everything, subscription)
            except PayloadError:
                subscription.report_undeliverable()
            else:
                self.fan_out.delivered_total += delivered

    def resume(self, subscription: Subscription) -> None:
        """Delivers the held publication if it is due. Call this method when the connection takes data again."""
        self.context.turn_s = self.context.now_s()
        self._resume(subscription)

    def _resume_due(self, targets: Sequence[Target]) -> None:
        self.context.turn_s = self.context.now_s()
        for target in targets:
            self._resume(target)

    def _resume(self, target: Target) -> None:
        try:
            self.fan_out.delivered_total += target.strategy.resume(target)
        except PayloadError:
            target.report_undeliverable()
        except Exception:  # noqa: BLE001 - a bug with one subscription must not stop the delivery to the others
            self._events.emit(InternalError("conflation", traceback.format_exc()))


def _ignore(channel: str, publication: Publication, epoch: str, previous: int) -> None:
    """Nobody wants publications in channels without subscribers."""
