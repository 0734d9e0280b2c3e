"""Defects that the simulation must find: each function replaces a part of the server by a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.delivery import subscription as subscription_module
from beaconfire.delivery.batch import NO_OFFSET, Batch
from beaconfire.delivery.channel import LocalChannel, Walk
from beaconfire.delivery.conflated import Conflated, HeldUpdate, Newest
from beaconfire.delivery.healer import Announcement
from beaconfire.delivery.hub import Hub
from beaconfire.delivery.item import Item
from beaconfire.delivery.outbox import Outbox, WriteBatch
from beaconfire.delivery.patched import Patched
from beaconfire.delivery.strategy import Target
from beaconfire.delivery.subscription import HELD, Gap, Held, Subscription, SubscriptionPhase
from beaconfire.engines.port import HistoryPage
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush
from beaconfire.node.broker_listener import BrokerListener
from beaconfire.node.channel_upkeep import ChannelUpkeep
from beaconfire.session import recovery
from beaconfire.session.operations import prepare, recover_in_pieces
from beaconfire.session.recovery import Recovery
from tests.simulation import broker
from tests.simulation.transport import PartialWriteTransport


def _publications_are_not_held(patch: pytest.MonkeyPatch) -> None:
    """Publications that arrive while a subscription is catching up are dropped."""
    patch.setattr(Subscription, "hold", lambda self, *arguments: None)
    # The check of offsets would find the first missing one, so this defect disables it as well.
    patch.setattr(Subscription, "advance", _accept_any_offset)
    patch.setattr(Hub, "_is_out_of_order", _is_never_out_of_order)


def _advance_past_gaps(seen: int, epoch: str, item: Item) -> int:
    """Accepts every new offset of the epoch, even if offsets before it are missing, live and while catching up."""
    if item.epoch != epoch:
        raise Gap("another epoch")
    return max(seen, item.offset)


def _accept_any_offset(self: Subscription, item: Item) -> bool:
    """As `_advance_past_gaps`, for live subscriptions only."""
    before, self.seen = self.seen, _advance_past_gaps(self.seen, self.epoch, item)
    return self.seen > before


def _is_never_behind(self: ChannelUpkeep, channel: str, top: StreamPosition) -> bool:
    """Does not compare positions."""
    return False


def _is_never_out_of_order(self: Hub, channel: str, local: LocalChannel, announcement: Announcement) -> bool:
    """Takes each announcement as the next one."""
    return False


def _subscription_is_added_to_the_hub_after_the_read(patch: pytest.MonkeyPatch) -> None:
    """The subscription is added to the hub only after history was read."""
    add, go_live = Hub.add, Subscription.go_live
    hubs: dict[Subscription, Hub] = {}

    def remember(self: Hub, subscription: Subscription) -> None:
        hubs[subscription] = self

    def go_live_late(self: Subscription, top: StreamPosition | None) -> list[Any]:
        add(hubs[self], self)
        return go_live(self, top)

    patch.setattr(Hub, "add", remember)
    patch.setattr(Subscription, "go_live", go_live_late)
    patch.setattr(Subscription, "advance", _accept_any_offset)
    patch.setattr(Hub, "_is_out_of_order", _is_never_out_of_order)


def _merge_keeps_duplicates(patch: pytest.MonkeyPatch) -> None:
    """Merge returns every held publication, even if history contains it."""

    def keep_all(held: Sequence[Held], top: StreamPosition) -> tuple[list[Any], int]:
        items = [entry.item for entry in held]
        return items, max([top.offset, *(item.offset for item in items)])

    patch.setattr(subscription_module, "_merge", keep_all)


def _recovery_always_succeeds(patch: pytest.MonkeyPatch) -> None:
    """Recovery reports success even if history does not have everything."""
    patch.setattr(prepare, "recover_stream", lambda since, page: Recovery(True, page.publications))


def _recovery_always_fails(patch: pytest.MonkeyPatch) -> None:
    """Recovery reports failure even if history has everything."""

    def fail(since: StreamPosition, page: HistoryPage) -> Recovery:
        return Recovery(False, ())

    patch.setattr(prepare, "recover_stream", fail)


def _subscription_is_live_from_the_start(patch: pytest.MonkeyPatch) -> None:
    """The subscription is live from the start, so publications overtake its reply."""
    init = Subscription.__init__

    def live(self: Subscription, *arguments: Any, **more: Any) -> None:
        init(self, *arguments, **more)
        self.phase = SubscriptionPhase.LIVE
        self.seen = subscription_module.ANY

    patch.setattr(Subscription, "__init__", live)
    assert HELD != subscription_module.ANY


def _recovery_ignores_the_epoch(patch: pytest.MonkeyPatch) -> None:
    """The broker does not compare epochs."""
    continues = broker.continues_from

    def ignore_epoch(since: StreamPosition, later: Sequence[Publication], top: StreamPosition) -> bool:
        return continues(StreamPosition(since.offset, top.epoch), later, top)

    patch.setattr(broker, "continues_from", ignore_epoch)


def _recovery_ignores_missing_publications(patch: pytest.MonkeyPatch) -> None:
    """Recovery does not ask whether history continues from the position."""

    def ignore_continues(since: StreamPosition, page: HistoryPage) -> Recovery:
        return recovery.recover_stream(since, HistoryPage(page.publications, page.position, True))

    patch.setattr(prepare, "recover_stream", ignore_continues)


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


def _recovery_starts_with_a_patch(patch: pytest.MonkeyPatch) -> None:
    """The first recovered publication is a patch from a publication of the previous connection."""

    init = Patched.__init__

    def start_with_a_base(self: Patched, codec: Any, context: Any) -> None:
        init(self, codec, context)
        self.base = Publication(Raw(b'"a publication of an earlier connection"'), offset=1)

    patch.setattr(Patched, "__init__", start_with_a_base)


def _filter_is_applied_before_the_continuity_check(patch: pytest.MonkeyPatch) -> None:
    """Recovery checks continuity after filtering."""
    recover_stream = recovery.recover_stream

    def check_selected(since: StreamPosition, page: HistoryPage) -> Recovery:
        left = [publication for publication in page.publications if (publication.tags or {}).get("kind") != "unwanted"]
        continues = broker.continues_from(since, left, page.position)
        return recover_stream(since, HistoryPage(left, page.position, continues))

    patch.setattr(prepare, "recover_stream", check_selected)


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


def _conflation_is_applied_before_the_continuity_check(patch: pytest.MonkeyPatch) -> None:
    """Recovery checks only the latest publication, which always exists."""
    recover_stream = recovery.recover_stream

    def check_selected(since: StreamPosition, page: HistoryPage) -> Recovery:
        return recover_stream(since, HistoryPage(page.publications[-1:], page.position, True))

    patch.setattr(prepare, "recover_stream", check_selected)


def _publications_are_not_held_between_pieces(patch: pytest.MonkeyPatch) -> None:
    """Publications that arrive while a later piece of a recovery is read are dropped."""
    patch.setattr(Subscription, "hold_again", lambda self: None)
    patch.setattr(Subscription, "advance", _accept_any_offset)
    patch.setattr(Hub, "_is_out_of_order", _is_never_out_of_order)
    patch.setattr(ChannelUpkeep, "_is_behind", _is_never_behind)


def _subscription_is_live_after_the_first_piece(patch: pytest.MonkeyPatch) -> None:
    """Publications that do not fit into the reply count as sent."""
    patch.setattr(Subscription, "fall_behind", lambda self, reached: None)


def _continuity_is_not_checked_between_pieces(patch: pytest.MonkeyPatch) -> None:
    """Nothing checks that history still has the publications after a piece."""
    patch.setattr(recover_in_pieces, "read_on", lambda since, page: page.publications)


def _recovery_continues_after_the_subscription_ended(patch: pytest.MonkeyPatch) -> None:
    """A recovery in pieces continues although its subscription has ended."""
    end = Subscription.end

    def keep(self: Subscription) -> None:
        reached = self.reached
        end(self)
        self.reached = reached

    patch.setattr(Subscription, "end", keep)


def _interrupted_walk_does_not_continue(patch: pytest.MonkeyPatch) -> None:
    """An interrupted walk does not reach the remaining subscriptions."""
    init = Walk.__init__

    def drop_the_rest(self: Walk, batch: Batch, left: Sequence[Subscription], *more: Any) -> None:
        init(self, batch, left[-1:], *more)

    patch.setattr(Walk, "__init__", drop_the_rest)
    patch.setattr(Subscription, "advance", _accept_any_offset)
    patch.setattr(Hub, "_is_out_of_order", _is_never_out_of_order)
    patch.setattr(ChannelUpkeep, "_is_behind", _is_never_behind)


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
    patch.setattr(Subscription, "advance", _accept_any_offset)
    patch.setattr(Hub, "_is_out_of_order", _is_never_out_of_order)
    patch.setattr(ChannelUpkeep, "_is_behind", _is_never_behind)


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
    patch.setattr(Subscription, "advance", _accept_any_offset)
    patch.setattr(Hub, "_is_out_of_order", _is_never_out_of_order)


def _predecessors_are_ignored(patch: pytest.MonkeyPatch) -> None:
    """A lost link is ignored, and a publication is accepted, held or live, although its predecessor never came."""
    patch.setattr(BrokerListener, "on_link_down", lambda self, channels: None)
    patch.setattr(subscription_module, "_advance", _advance_past_gaps)


def _marked_gap_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """Nobody learns of a marked gap, and live subscriptions accept missing offsets."""
    patch.setattr(Hub, "mark_gap", lambda self, channel, reason: None)
    patch.setattr(Subscription, "advance", _accept_any_offset)
    patch.setattr(Hub, "_is_out_of_order", _is_never_out_of_order)


def _marked_gap_spares_subscriptions_that_are_catching_up(patch: pytest.MonkeyPatch) -> None:
    """A subscription that is catching up goes live although a gap was marked."""
    patch.setattr(Subscription, "mark_gap", lambda self: None)
    patch.setattr(subscription_module, "_advance", _advance_past_gaps)


def _has_another_epoch(self: ChannelUpkeep, channel: str, top: StreamPosition) -> bool:
    """Does not compare offsets."""
    announced = self._hub.announced(channel)
    return announced is not None and announced.epoch != top.epoch


def accept_missing_offsets(patch: pytest.MonkeyPatch) -> None:
    """Disables the checks that hide some defects. Without lost links it is no defect alone, because no announcement is
    missing."""
    patch.setattr(subscription_module, "_advance", _advance_past_gaps)
    patch.setattr(Hub, "_is_out_of_order", _is_never_out_of_order)
    patch.setattr(ChannelUpkeep, "_is_behind", _has_another_epoch)


DEFECTS: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    _publications_are_not_held,
    _subscription_is_added_to_the_hub_after_the_read,
    _merge_keeps_duplicates,
    _recovery_always_succeeds,
    _recovery_always_fails,
    _subscription_is_live_from_the_start,
    _recovery_ignores_the_epoch,
    _recovery_ignores_missing_publications,
    _write_batch_overtakes_the_outbox,
    _rest_of_a_frame_is_dropped,
    _partly_sent_frame_is_sent_again,
    _patches_ignore_the_base,
    _patch_starts_from_a_filtered_publication,
    _recovery_starts_with_a_patch,
    _filter_is_applied_before_the_continuity_check,
    _conflation_keeps_the_oldest,
    _left_out_publications_are_not_counted,
    _held_publication_is_not_delivered_after_a_pause,
    _patch_starts_from_a_left_out_publication,
    _conflation_is_applied_before_the_continuity_check,
    _publications_are_not_held_between_pieces,
    _subscription_is_live_after_the_first_piece,
    _continuity_is_not_checked_between_pieces,
    _recovery_continues_after_the_subscription_ended,
    _interrupted_walk_does_not_continue,
    _publication_overtakes_an_interrupted_walk,
    _walk_visits_a_subscription_twice,
    _new_subscription_joins_the_walk,
    _leave_loses_the_batch_of_the_walk,
    _predecessors_are_ignored,
    _marked_gap_is_ignored,
    _marked_gap_spares_subscriptions_that_are_catching_up,
)
