"""Defects of the fan-out that the simulation must find. See `recovery_defects`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from beaconfire.delivery import subscription as subscription_module
from beaconfire.delivery.batch import NO_OFFSET, Batch
from beaconfire.delivery.channel import LocalChannel, Walk
from beaconfire.delivery.conflated import Conflated, HeldUpdate, Newest
from beaconfire.delivery.hub import Hub
from beaconfire.delivery.item import Item
from beaconfire.delivery.outbox import Outbox, WriteBatch
from beaconfire.delivery.patched import Patched
from beaconfire.delivery.strategy import Target
from beaconfire.delivery.subscription import Gap, Subscription
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush
from beaconfire.node.broker_listener import BrokerListener
from tests.simulation.disabled_checks import (
    advance_past_gaps,
    ignore_offsets_of_announcements,
    ignore_positions,
    is_never_out_of_order,
)
from tests.simulation.transport import PartialWriteTransport


def _write_batch_overtakes_the_outbox(patch: pytest.MonkeyPatch) -> None:
    """A frame is added to the write batch although older frames wait in the outbox."""

    def overtake(self: Outbox, frame: bytes, write_batch: WriteBatch) -> None:
        transport = self._transport
        if transport is not None and transport.direct is not None:
            write_batch.transports.append(transport)
            write_batch.frames.append(frame)
        else:
            self.append(frame)

    patch.setattr(Outbox, "add_to", overtake)


def _rest_of_a_frame_is_dropped(patch: pytest.MonkeyPatch) -> None:
    """The part of a frame that a socket does not take is dropped."""
    patch.setattr(PartialWriteTransport, "write_rest", lambda self, data, sent: None)


def _partly_sent_frame_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    """A frame that a socket takes only partly is sent again from its start."""
    patch.setattr(PartialWriteTransport, "write_rest", lambda self, data, sent: self.write([data]))


def _patches_ignore_the_base(patch: pytest.MonkeyPatch) -> None:
    """Every subscription with deltas gets a patch, even without the publication that the patch starts from."""
    patch.setattr(Item, "base_for", lambda self, base, positioned: self.predecessor)


def _patch_starts_from_a_filtered_publication(patch: pytest.MonkeyPatch) -> None:
    """A patch starts from the previous publication of the stream, although a filter kept it from the client."""

    def base_for(self: Item, base: Publication | None, positioned: bool) -> Publication | None:
        return self.predecessor if base is not None else None

    patch.setattr(Item, "base_for", base_for)


def _conflation_keeps_the_oldest(patch: pytest.MonkeyPatch) -> None:
    """The first publication stays held, and newer ones are left out."""
    hold = Conflated.hold

    def keep(self: Conflated, newest: Newest) -> None:
        first = self.held or newest.item
        hold(self, newest)
        self.held = first

    patch.setattr(Conflated, "hold", keep)


def _left_out_publications_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    """Publications that conflation left out are not counted."""
    take = Conflated.take
    patch.setattr(Conflated, "take", lambda self, now_s: HeldUpdate(take(self, now_s).item, 0))


def _held_publication_is_not_delivered_after_a_pause(patch: pytest.MonkeyPatch) -> None:
    """A held publication is not delivered when the connection takes data again."""

    def deliver_nothing(self: Hub, subscription: Subscription) -> None:
        pass

    patch.setattr(Hub, "resume", deliver_nothing)


def _patch_starts_from_a_left_out_publication(patch: pytest.MonkeyPatch) -> None:
    """The newest publication is a patch from a publication that conflation left out."""
    deliver_update = Patched.deliver_update

    def patch_from_predecessor(self: Patched, item: Item, left_out: int, target: Target) -> int:
        self.base = item.predecessor
        return deliver_update(self, item, left_out, target)

    patch.setattr(Patched, "deliver_update", patch_from_predecessor)


def _interrupted_walk_does_not_continue(patch: pytest.MonkeyPatch) -> None:
    """An interrupted walk does not reach the remaining subscriptions."""
    init = Walk.__init__

    def drop_the_rest(self: Walk, batch: Batch, left: Sequence[Subscription], *more: Any) -> None:
        init(self, batch, left[-1:], *more)

    patch.setattr(Walk, "__init__", drop_the_rest)
    ignore_offsets_of_announcements(patch)
    ignore_positions(patch)


def _publication_overtakes_an_interrupted_walk(patch: pytest.MonkeyPatch) -> None:
    """A publication that arrives during an interrupted walk does not wait for its end."""
    publish = Hub.publish

    def overtake(self: Hub, channel: str, publication: Publication, epoch: str, *more: Any) -> None:
        local = self._channels.get(channel)
        if local is None or local.walk is None:
            publish(self, channel, publication, epoch, *more)
            return
        batch = Batch([Item(PublicationPush(channel, publication), publication.offset, 0, epoch, (), local.numbers)])
        for subscription in list(local.subscriptions.values()):
            with suppress(Gap):
                self.fan_out._deliver_to(batch, subscription)

    patch.setattr(Hub, "publish", overtake)
    ignore_offsets_of_announcements(patch)
    ignore_positions(patch)


def _walk_visits_a_subscription_twice(patch: pytest.MonkeyPatch) -> None:
    """An interrupted walk continues with the subscription that it visited last."""
    init = Walk.__init__

    def visit_again(self: Walk, batch: Batch, left: Sequence[Subscription], visited: int, *more: Any) -> None:
        local = left[0].local
        assert isinstance(local, LocalChannel)
        again = [subscription for subscription in local.subscriptions.values() if subscription.number == visited]
        for subscription in again:
            if subscription.is_positioned and batch.previous != NO_OFFSET:
                subscription.seen = batch.previous  # or the check of offsets would refuse the second delivery
        init(self, batch, [*again, *left], visited, *more)

    patch.setattr(Walk, "__init__", visit_again)


def _new_subscription_joins_the_walk(patch: pytest.MonkeyPatch) -> None:
    """A subscription that is added during a walk gets the batch of the walk, and what is pending."""
    add, advance = LocalChannel.add, Subscription.advance
    numbers: dict[Subscription, int] = {}

    def join(self: LocalChannel, subscription: Subscription) -> None:
        add(self, subscription)
        if self.walk is not None:
            numbers[subscription] = subscription.number
            self.walk.left = iter([*self.walk.left, subscription])
            self.walk.last = subscription.number = 1

    def accept_earlier(self: Subscription, item: Item) -> bool:
        """The check of offsets would refuse what history contained."""
        return item.number_max < numbers.get(self, 0) or advance(self, item)

    patch.setattr(LocalChannel, "add", join)
    patch.setattr(Subscription, "advance", accept_earlier)


def _leave_loses_the_batch_of_the_walk(patch: pytest.MonkeyPatch) -> None:
    """A subscription that leaves during a walk does not get the batch of the walk, only what is pending."""
    patch.setattr(Walk, "is_to_visit", lambda self, subscription: False)
    ignore_offsets_of_announcements(patch)


def _predecessors_are_ignored(patch: pytest.MonkeyPatch) -> None:
    """A lost link is ignored, and a publication is accepted, by the hub, held or live, although its predecessor never
    came."""
    patch.setattr(BrokerListener, "on_link_down", lambda self, channels: None)
    patch.setattr(BrokerListener, "on_link_up", lambda self, channels: None)
    patch.setattr(Hub, "_is_out_of_order", is_never_out_of_order)
    patch.setattr(subscription_module, "_advance", advance_past_gaps)


def _marked_gap_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """Nobody learns of a marked gap, and live subscriptions accept missing offsets."""
    patch.setattr(Hub, "mark_gap", lambda self, channel, reason, kept=None: None)
    ignore_offsets_of_announcements(patch)


def _marked_gap_spares_subscriptions_that_are_catching_up(patch: pytest.MonkeyPatch) -> None:
    """A subscription that is catching up goes live although a gap was marked."""
    patch.setattr(Subscription, "mark_gap", lambda self: None)
    patch.setattr(subscription_module, "_advance", advance_past_gaps)


DEFECTS: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    _write_batch_overtakes_the_outbox,
    _rest_of_a_frame_is_dropped,
    _partly_sent_frame_is_sent_again,
    _patches_ignore_the_base,
    _patch_starts_from_a_filtered_publication,
    _conflation_keeps_the_oldest,
    _left_out_publications_are_not_counted,
    _held_publication_is_not_delivered_after_a_pause,
    _patch_starts_from_a_left_out_publication,
    _interrupted_walk_does_not_continue,
    _publication_overtakes_an_interrupted_walk,
    _walk_visits_a_subscription_twice,
    _new_subscription_joins_the_walk,
    _leave_loses_the_batch_of_the_walk,
    _predecessors_are_ignored,
    _marked_gap_is_ignored,
    _marked_gap_spares_subscriptions_that_are_catching_up,
)
