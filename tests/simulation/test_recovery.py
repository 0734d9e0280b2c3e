"""Gapless recovery in thousands of random interleavings, and proof that the simulation finds planted defects."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.channels.attachments import Attachments
from beaconfire.delivery import subscription as subscription_module
from beaconfire.delivery.batch import Batch, Item, Newest
from beaconfire.delivery.conflation import Conflation, HeldUpdate
from beaconfire.delivery.hub import Hub
from beaconfire.delivery.outbox import Outbox, WriteBatch
from beaconfire.delivery.strategy import DeliveryStrategy
from beaconfire.delivery.subscription import HELD, Held, Subscription, SubscriptionPhase
from beaconfire.engines.port import HistoryPage
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush
from beaconfire.node.broker_listener import BrokerListener
from beaconfire.session import recovery
from beaconfire.session.membership import Memberships
from beaconfire.session.operations import prepare, recover_in_pieces
from beaconfire.session.operations.prepare import Preparation
from beaconfire.session.recovery import Recovery
from tests.simulation import broker
from tests.simulation.broken_guarantee import BrokenGuarantee
from tests.simulation.simulation import Simulation
from tests.simulation.transport import PartialWriteTransport

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "4000"))
FIRST_SEED = int(os.environ.get("SIMULATION_FIRST_SEED", "0"))
STEPS = 240
BLOCKS = 10


def simulate(seed: int) -> Simulation:
    """Runs one simulation to its end. A failure names its seed."""

    async def run() -> Simulation:
        simulation = Simulation(seed)
        await simulation.run(STEPS)
        return simulation

    try:
        return asyncio.run(run())
    except BrokenGuarantee as failure:
        raise BrokenGuarantee(f"seed {seed}: {failure}") from failure


@pytest.mark.parametrize("block", range(BLOCKS))
def test_publications_arrive_once_and_in_order(block: int) -> None:
    """In every interleaving, a client gets each publication once and in order, or learns that some are missing."""
    received = recovered = unrecovered = patched = filtered = conflated = in_pieces = interrupted = 0
    for seed in range(FIRST_SEED + block, FIRST_SEED + SEEDS, BLOCKS):
        simulation = simulate(seed)
        received += sum(client.received for client in simulation.clients)
        recovered += sum(client.recovered for client in simulation.clients)
        unrecovered += sum(client.unrecovered for client in simulation.clients)
        patched += sum(client.patched for client in simulation.clients)
        filtered += sum(client.filtered for client in simulation.clients)
        conflated += sum(client.conflated for client in simulation.clients)
        in_pieces += simulation.recorder.limits().count("client.reply_max_size")
        interrupted += simulation.interrupted
    # A simulation without events would pass as well.
    assert received + filtered + conflated > SEEDS / BLOCKS * 20
    assert recovered > SEEDS / BLOCKS * 0.6
    assert unrecovered > 0
    assert patched > SEEDS / BLOCKS
    assert filtered > SEEDS / BLOCKS * 2
    assert conflated > SEEDS / BLOCKS * 2
    assert in_pieces > SEEDS / BLOCKS * 0.1
    assert interrupted > SEEDS / BLOCKS * 5


# --- planted defects --------------------------------------------------------------------------------------------


def _publications_are_not_held(patch: pytest.MonkeyPatch) -> None:
    """Publications that arrive while a subscription is catching up are dropped."""
    patch.setattr(Subscription, "hold", lambda self, *arguments: None)
    # The check of offsets would find the first missing one, so this defect disables it as well.
    patch.setattr(Subscription, "advance", lambda self, offset, epoch: _accept_any_offset(self, offset))


def _accept_any_offset(self: Subscription, offset: int) -> bool:
    """Accepts every new offset, even if offsets before it are missing."""
    if offset < self.expected:
        return False
    self.expected = offset + 1
    return True


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
    patch.setattr(Subscription, "advance", lambda self, offset, epoch: _accept_any_offset(self, offset))


def _second_subscriber_does_not_wait_for_the_attach(patch: pytest.MonkeyPatch) -> None:
    """A second subscriber does not wait for an attach that is in flight."""
    attach = Attachments.attach

    async def attach_unless_in_flight(self: Attachments, channel: str) -> None:
        if channel not in self._locks:
            await attach(self, channel)

    patch.setattr(Attachments, "attach", attach_unless_in_flight)
    patch.setattr(Subscription, "check", lambda self, top: None)


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
    patch.setattr(Subscription, "check", lambda self, top: None)


def _merge_keeps_duplicates(patch: pytest.MonkeyPatch) -> None:
    """Merge returns every held publication, even if history contains it."""

    def keep_all(held: Sequence[Held], top: StreamPosition) -> tuple[list[Any], int]:
        publications = [item.publication for item in held]
        return publications, max([top.offset, *(p.offset for p in publications)]) + 1

    patch.setattr(subscription_module, "_merge", keep_all)


def _detach_ignores_new_subscribers(patch: pytest.MonkeyPatch) -> None:
    """Detach does not check again whether the channel has subscribers."""

    async def detach(self: Attachments, channel: str) -> None:
        await self._broker.detach([channel])
        self._attached.discard(channel)

    patch.setattr(Attachments, "_detach", detach)
    patch.setattr(Subscription, "check", lambda self, top: None)


def _lost_link_and_offsets_are_ignored(patch: pytest.MonkeyPatch) -> None:
    """A lost link is ignored, and live subscriptions accept missing offsets."""
    patch.setattr(BrokerListener, "on_link_down", lambda self, channels: None)
    patch.setattr(Subscription, "advance", lambda self, offset, epoch: _accept_any_offset(self, offset))


def _lost_link_is_ignored_and_positions_are_not_compared(patch: pytest.MonkeyPatch) -> None:
    """A lost link is ignored, and positions are not compared with the stream."""
    patch.setattr(BrokerListener, "on_link_down", lambda self, channels: None)
    patch.setattr(Subscription, "check", lambda self, top: None)


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
        self.expected = subscription_module.ANY

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
    patch.setattr(Item, "base_for", lambda self, base, positioned: self.previous)


def _patch_starts_from_a_filtered_publication(patch: pytest.MonkeyPatch) -> None:
    """A patch starts from the previous publication of the stream, although a filter kept it from the client."""

    def base_for(self: Item, base: Publication | None, positioned: bool) -> Publication | None:
        return self.previous if base is not None else None

    patch.setattr(Item, "base_for", base_for)


def _recovery_starts_with_a_patch(patch: pytest.MonkeyPatch) -> None:
    """The first recovered publication is a patch from a publication of the previous connection."""

    def start_with_a_base(self: DeliveryStrategy, tags_filter: Any, codec: Any, conflation: Any) -> None:
        self.tags_filter, self.codec, self.conflation = tags_filter, codec, conflation
        self.base = Publication(Raw(b'"a publication of an earlier connection"'), offset=1)

    patch.setattr(DeliveryStrategy, "__init__", start_with_a_base)


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
    hold = Conflation.hold

    def keep(self: Conflation, newest: Newest) -> None:
        first = self.held or newest.item
        hold(self, newest)
        self.held = first

    patch.setattr(Conflation, "hold", keep)


def _left_out_publications_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    """Publications that conflation left out are not counted."""
    take = Conflation.take
    patch.setattr(Conflation, "take", lambda self, now_s: HeldUpdate(take(self, now_s).item, 0))


def _held_publication_is_not_delivered_after_a_pause(patch: pytest.MonkeyPatch) -> None:
    """A held publication is not delivered when the connection takes data again."""

    def deliver_nothing(self: Hub, subscription: Subscription) -> None:
        pass

    patch.setattr(Hub, "deliver_held", deliver_nothing)


def _patch_starts_from_a_left_out_publication(patch: pytest.MonkeyPatch) -> None:
    """The newest publication is a patch from a publication that conflation left out."""
    single_frame = Item.single_frame

    def patch_from_previous(self: Item, wire: Any, left_out: int, codec: Any, base: Any, patches: Any) -> Any:
        return single_frame(self, wire, left_out, codec, self.previous, patches)

    patch.setattr(Item, "single_frame", patch_from_previous)


def _conflation_is_applied_before_the_continuity_check(patch: pytest.MonkeyPatch) -> None:
    """Recovery checks only the latest publication, which always exists."""
    recover_stream = recovery.recover_stream

    def check_selected(since: StreamPosition, page: HistoryPage) -> Recovery:
        return recover_stream(since, HistoryPage(page.publications[-1:], page.position, True))

    patch.setattr(prepare, "recover_stream", check_selected)


def _publications_are_not_held_between_pieces(patch: pytest.MonkeyPatch) -> None:
    """Publications that arrive while a later piece of a recovery is read are dropped."""
    patch.setattr(Subscription, "hold_again", lambda self: None)
    patch.setattr(Subscription, "advance", lambda self, offset, epoch: _accept_any_offset(self, offset))


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
    continue_walks = Hub._continue_walks

    def drop_the_rest(self: Hub) -> None:
        continue_walks(self)
        for _, local in self._walking:
            assert local.walk is not None
            local.walk.waiting.clear()

    patch.setattr(Hub, "_continue_walks", drop_the_rest)
    patch.setattr(Subscription, "advance", lambda self, offset, epoch: _accept_any_offset(self, offset))
    patch.setattr(Subscription, "check", lambda self, top: None)


def _publication_overtakes_an_interrupted_walk(patch: pytest.MonkeyPatch) -> None:
    """A publication that arrives during an interrupted walk does not wait for its end."""
    publish = Hub.publish

    def overtake(self: Hub, channel: str, publication: Publication, epoch: str, *more: Any) -> None:
        local = self._channels.get(channel)
        if local is None or local.walk is None:
            publish(self, channel, publication, epoch, *more)
            return
        batch = Batch([Item(PublicationPush(channel, publication), publication.offset, epoch, ())])
        for subscription in list(local.members()):
            self._selective.deliver_selected(batch, subscription)

    patch.setattr(Hub, "publish", overtake)
    patch.setattr(Subscription, "advance", lambda self, offset, epoch: _accept_any_offset(self, offset))
    patch.setattr(Subscription, "check", lambda self, top: None)


DEFECTS: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    _publications_are_not_held,
    _subscription_is_added_to_the_hub_after_the_read,
    _second_subscriber_does_not_wait_for_the_attach,
    _history_is_read_before_the_attach,
    _merge_keeps_duplicates,
    _detach_ignores_new_subscribers,
    _lost_link_and_offsets_are_ignored,
    _lost_link_is_ignored_and_positions_are_not_compared,
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
)


@pytest.mark.parametrize("plant", DEFECTS, ids=lambda function: function.__name__.strip("_"))
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine")
def test_every_planted_defect_is_found(plant: Callable[[pytest.MonkeyPatch], None]) -> None:
    """At most 1,500 simulations are necessary to find each defect. For most defects ten are enough."""
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        for seed in range(1500):
            try:
                simulate(seed)
            except AssertionError:
                gc.collect()  # here, where the warnings of unfinished coroutines are ignored
                return
    raise AssertionError(f"1,500 simulations did not find the defect: {plant.__doc__}")
