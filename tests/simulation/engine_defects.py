"""Defects of the node's side of the engine that the simulation must find: attachments, healing, presence, joins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from beaconfire.channels.attachments import Attachments
from beaconfire.channels.lanes import Lane, Lanes
from beaconfire.delivery.hub import Hub
from beaconfire.delivery.subscription import Subscription
from beaconfire.engines.port import MemberChange
from beaconfire.model.position import StreamPosition
from beaconfire.node import healing
from beaconfire.node.broker_listener import BrokerListener
from beaconfire.node.healing import ChannelHealing, Healing
from beaconfire.session.membership import Memberships
from beaconfire.session.operations.prepare import Preparation
from tests.simulation.disabled_checks import accept_missing_offsets, ignore_positions


def _second_subscriber_does_not_wait_for_the_attach(patch: pytest.MonkeyPatch) -> None:
    """A second subscriber does not wait for an attach that is in flight."""
    attach = Attachments.attach

    async def attach_unless_in_flight(self: Attachments, channel: str) -> None:
        if channel not in self._wanted:
            await attach(self, channel)

    patch.setattr(Attachments, "attach", attach_unless_in_flight)
    ignore_positions(patch)


def _history_is_read_before_the_attach(patch: pytest.MonkeyPatch) -> None:
    """History is read before the channel is attached."""
    attach, read = Memberships.attach, Preparation._read

    async def skip_attach(self: Memberships, channel: str) -> None:
        pass

    async def read_then_attach(self: Any, session: Any, subscription: Subscription, *arguments: Any) -> Any:
        answer = await read(self, session, subscription, *arguments)
        await attach(session.context.memberships, subscription.channel)
        return answer

    patch.setattr(Memberships, "attach", skip_attach)
    patch.setattr(Preparation, "_read", read_then_attach)
    ignore_positions(patch)


def _detach_ignores_new_subscribers(patch: pytest.MonkeyPatch) -> None:
    """Detach does not check again whether the channel has subscribers."""

    def detach(self: Attachments, channels: Any, failures: int) -> None:
        async def run() -> None:
            await self._broker.detach(list(channels))

        self._background.start(run())

    patch.setattr(Attachments, "_detach_unneeded", detach)
    ignore_positions(patch)


def _lost_link_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """Nothing happens when a link is lost and comes back."""
    patch.setattr(BrokerListener, "on_link_down", lambda self, channels: None)
    patch.setattr(BrokerListener, "on_link_up", lambda self, channels: None)
    ignore_positions(patch)


def _attachments_survive_the_link(patch: pytest.MonkeyPatch) -> None:
    """Channels count as attached although their link was lost."""
    patch.setattr(Attachments, "link_down", lambda self, channels: None)
    ignore_positions(patch)


def _attach_of_a_lost_link_counts(patch: pytest.MonkeyPatch) -> None:
    """The result of an attach counts although the link was lost meanwhile."""
    end_attach = Attachments._end_attach

    def end(self: Attachments, channel: str, error: Exception | None) -> None:
        self._voided.discard(channel)
        end_attach(self, channel, error)

    patch.setattr(Attachments, "_end_attach", end)
    ignore_positions(patch)


def _attach_does_not_wait_for_the_link(patch: pytest.MonkeyPatch) -> None:
    """An attach returns although the link is lost."""
    attach = Attachments.attach

    async def attach_if_up(self: Attachments, channel: str) -> None:
        if not self._link.is_down(channel):
            await attach(self, channel)

    patch.setattr(Attachments, "attach", attach_if_up)
    patch.setattr(Healing, "heal_all", lambda self, channels: None)
    ignore_positions(patch)


def _detach_overtakes_a_later_attach(patch: pytest.MonkeyPatch) -> None:
    """An attach does not wait for a detach on its way."""

    def detach(self: Attachments, channels: Any, failures: int) -> None:
        unneeded = [channel for channel in channels if not self._is_needed(channel)]
        self._attached.difference_update(unneeded)

        async def run() -> None:
            await self._broker.detach(unneeded)

        self._background.start(run())

    patch.setattr(Attachments, "_detach_unneeded", detach)
    ignore_positions(patch)


def _channels_are_not_healed_after_a_lost_link(patch: pytest.MonkeyPatch) -> None:
    """Nothing is read after a link is back."""
    patch.setattr(Healing, "heal_all", lambda self, channels: None)
    ignore_positions(patch)


def _healing_skips_the_missing_publications(patch: pytest.MonkeyPatch) -> None:
    """The channel continues after the missing publications without them."""

    def skip(self: Healing, channel: str, healing: ChannelHealing, publications: Any, since: StreamPosition) -> None:
        if publications:
            healing.local.restart(StreamPosition(publications[-1].offset, since.epoch))

    patch.setattr(Healing, "_deliver", skip)


def _healing_delivers_only_the_first_publication(patch: pytest.MonkeyPatch) -> None:
    """The rest of the page is lost."""
    deliver = Healing._deliver

    def first(self: Healing, channel: str, healing: ChannelHealing, publications: Any, since: StreamPosition) -> None:
        deliver(self, channel, healing, publications[:1], since)

    patch.setattr(Healing, "_deliver", first)


def _announcements_after_a_hole_are_dropped(patch: pytest.MonkeyPatch) -> None:
    """An announcement whose predecessor has not come is lost, and nothing is read."""
    patch.setattr(Healing, "on_hole", lambda self, channel, announcement: None)
    ignore_positions(patch)


def _healing_ends_every_subscription(patch: pytest.MonkeyPatch) -> None:
    """Subscriptions end although history has what they miss."""

    async def give_up(self: Healing, channel: str, healing: ChannelHealing) -> None:
        self._give_up(channel, healing, "planted")

    patch.setattr(Healing, "_read_missing", give_up)


def _gap_is_not_told(patch: pytest.MonkeyPatch) -> None:
    """Nobody is told that history does not have the missing publications."""
    accept_missing_offsets(patch)

    def restart(self: Healing, channel: str, reason: str, kept: StreamPosition | None = None) -> None:
        local = self._hub.find_channel(channel)
        assert local is not None
        local.restart(kept)

    patch.setattr(Healing, "_mark_gap", restart)


def _gap_is_told_to_subscriptions_without_one(patch: pytest.MonkeyPatch) -> None:
    """A gap also ends subscriptions at positions that history reaches back to."""
    mark_gap = Hub.mark_gap
    patch.setattr(Hub, "mark_gap", lambda self, channel, reason, kept=None: mark_gap(self, channel, reason))


def _removal_overtakes_an_addition(patch: pytest.MonkeyPatch) -> None:
    """Presence entries are removed without waiting for other changes of the channel."""

    def remove(self: Lanes, channel: str, client: str, leave: MemberChange | None = None) -> None:
        async def run() -> None:
            await self._presence.remove(channel, [client])

        self._background.start(run())
        if leave is not None:
            self.announce(channel, leave)

    patch.setattr(Lanes, "remove", remove)


def _failed_changes_are_not_repeated(patch: pytest.MonkeyPatch) -> None:
    """A presence change that has failed is dropped."""
    patch.setattr(Lane, "put_back", lambda self, client, change: None)


def _entry_of_a_refused_subscriber_stays(patch: pytest.MonkeyPatch) -> None:
    """An entry is added although its subscription has ended before."""
    add_presence = Memberships.add_presence

    async def add(self: Memberships, subscription: Subscription) -> None:
        removed, subscription.removed = subscription.removed, False
        try:
            await add_presence(self, subscription)
        finally:
            subscription.removed = removed or subscription.removed

    patch.setattr(Memberships, "add_presence", add)


def _announcements_overtake_each_other(patch: pytest.MonkeyPatch) -> None:
    """Joins and leaves do not wait for each other."""

    async def announce(self: Lanes, channel: str, lane: Lane, count: int) -> bool:
        changes: Sequence[MemberChange] = lane.announcements[:count]
        del lane.announcements[:count]
        for change in changes:
            self._background.start(self._broker.announce(channel, [change]))
        return True

    patch.setattr(Lanes, "_announce", announce)


def _leaves_are_not_announced(patch: pytest.MonkeyPatch) -> None:
    """The leave is dropped."""
    remove = Lanes.remove
    patch.setattr(Lanes, "remove", lambda self, channel, client, leave=None: remove(self, channel, client))


def _stream_that_went_back_is_not_noticed(patch: pytest.MonkeyPatch) -> None:
    """After a failover, a channel counts as healed although the stream lacks what the channel has delivered."""
    patch.setattr(healing, "_is_behind", lambda top, announced: False)
    ignore_positions(patch)  # the checks of later publications would find the loss


DEFECTS: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    _second_subscriber_does_not_wait_for_the_attach,
    _history_is_read_before_the_attach,
    _detach_ignores_new_subscribers,
    _lost_link_is_ignored,
    _attachments_survive_the_link,
    _attach_of_a_lost_link_counts,
    _attach_does_not_wait_for_the_link,
    _detach_overtakes_a_later_attach,
    _channels_are_not_healed_after_a_lost_link,
    _healing_skips_the_missing_publications,
    _healing_delivers_only_the_first_publication,
    _announcements_after_a_hole_are_dropped,
    _healing_ends_every_subscription,
    _gap_is_not_told,
    _gap_is_told_to_subscriptions_without_one,
    _removal_overtakes_an_addition,
    _failed_changes_are_not_repeated,
    _entry_of_a_refused_subscriber_stays,
    _announcements_overtake_each_other,
    _leaves_are_not_announced,
    _stream_that_went_back_is_not_noticed,
)
