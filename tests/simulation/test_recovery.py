"""Gapless recovery under thousands of random interleavings, and proof that the simulation would notice."""

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
from beaconfire.delivery.subscription import (
    HELD,
    Held,
    Subscription,
    SubscriptionPhase,
)
from beaconfire.engines.port import HistoryPage
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush
from beaconfire.node.broker_listener import BrokerListener
from beaconfire.session import recovery
from beaconfire.session.membership import Memberships
from beaconfire.session.operations import prepare, recover
from beaconfire.session.operations.prepare import Preparation
from beaconfire.session.recovery import Recovery
from tests.simulation.world import Pipe, Violation, World

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "4000"))
FIRST_SEED = int(os.environ.get("SIMULATION_FIRST_SEED", "0"))
STEPS = 240
BLOCKS = 10


def simulate(seed: int) -> World:
    """One world, to its end. A failure names its seed."""

    async def live() -> World:
        world = World(seed)
        await world.run(STEPS)
        return world

    try:
        return asyncio.run(live())
    except Violation as violation:
        raise Violation(f"seed {seed}: {violation}") from violation


@pytest.mark.parametrize("block", range(BLOCKS))
def test_nothing_is_lost_doubled_or_disordered(block: int) -> None:
    """Whatever interleaves, a client gets every publication once and in order, or the truth that it can't."""
    received = recovered = unrecovered = patched = filtered = conflated = in_pieces = interrupted = 0
    for seed in range(FIRST_SEED + block, FIRST_SEED + SEEDS, BLOCKS):
        world = simulate(seed)
        received += sum(client.received for client in world.clients)
        recovered += sum(client.recovered for client in world.clients)
        unrecovered += sum(client.unrecovered for client in world.clients)
        patched += sum(client.patched for client in world.clients)
        filtered += sum(client.filtered for client in world.clients)
        conflated += sum(client.conflated for client in world.clients)
        in_pieces += world.alarm.in_pieces
        interrupted += world.interrupted
    # A simulation in which nothing happens would pass as well.
    assert received + filtered + conflated > SEEDS / BLOCKS * 20
    assert recovered > SEEDS / BLOCKS * 0.6
    assert unrecovered > 0
    assert patched > SEEDS / BLOCKS
    assert filtered > SEEDS / BLOCKS * 2
    assert conflated > SEEDS / BLOCKS * 2
    assert in_pieces > SEEDS / BLOCKS * 0.1
    assert interrupted > SEEDS / BLOCKS * 5


# --- broken on purpose -------------------------------------------------------------------------------------------


def _no_hold(patch: pytest.MonkeyPatch) -> None:
    """Live publications that arrive while catching up are dropped instead of kept."""
    patch.setattr(Subscription, "hold", lambda self, *arguments: None)
    # Without the position check, which would notice the first hole: one safety net at a time.
    patch.setattr(Subscription, "advance", lambda self, offset, epoch: _follow(self, offset))


def _follow(self: Subscription, offset: int) -> bool:
    """Takes whatever is new, hole or not."""
    if offset < self.expected:
        return False
    self.expected = offset + 1
    return True


def _late_hold(patch: pytest.MonkeyPatch) -> None:
    """The subscription joins the hub only when history has been read."""
    add, go_live = Hub.add, Subscription.go_live
    hubs: dict[Subscription, Hub] = {}

    def remember(self: Hub, subscription: Subscription) -> None:
        hubs[subscription] = self

    def join_late(self: Subscription, top: StreamPosition | None) -> list[Any]:
        add(hubs[self], self)
        return go_live(self, top)

    patch.setattr(Hub, "add", remember)
    patch.setattr(Subscription, "go_live", join_late)
    patch.setattr(Subscription, "advance", lambda self, offset, epoch: _follow(self, offset))


def _trusting_attach(patch: pytest.MonkeyPatch) -> None:
    """A second subscriber trusts an attach that is still in flight."""
    attach = Attachments.attach

    async def trust(self: Attachments, channel: str) -> None:
        if channel not in self._locks:
            await attach(self, channel)

    patch.setattr(Attachments, "attach", trust)
    patch.setattr(Subscription, "check", lambda self, top: None)


def _read_before_attach(patch: pytest.MonkeyPatch) -> None:
    """History is read first, then the channel is attached."""
    attach, read = Memberships.attach, Preparation._read

    async def nothing(self: Memberships, channel: str) -> None:
        pass

    async def read_then_attach(self: Any, session: Any, subscription: Subscription, *arguments: Any) -> Any:
        answer = await read(self, session, subscription, *arguments)
        await attach(session.context.memberships, subscription.channel)
        return answer

    patch.setattr(Memberships, "attach", nothing)
    patch.setattr(Preparation, "_read", read_then_attach)
    patch.setattr(Subscription, "check", lambda self, top: None)


def _no_duplicate_check(patch: pytest.MonkeyPatch) -> None:
    """Merge hands out everything that was held, whether history had it or not."""

    def keep_all(held: Sequence[Held], top: StreamPosition) -> tuple[list[Any], int]:
        publications = [item.publication for item in held]
        return publications, max([top.offset, *(p.offset for p in publications)]) + 1

    patch.setattr(subscription_module, "_merge", keep_all)


def _no_second_look(patch: pytest.MonkeyPatch) -> None:
    """Detach does not look again whether somebody has come back."""

    async def detach(self: Attachments, channel: str) -> None:
        await self._broker.detach(channel)
        self._attached.discard(channel)

    patch.setattr(Attachments, "_detach", detach)
    patch.setattr(Subscription, "check", lambda self, top: None)


def _deaf_to_lost_links(patch: pytest.MonkeyPatch) -> None:
    """A lost link is shrugged off, and positions are not watched."""
    patch.setattr(BrokerListener, "on_link_lost", lambda self, channels: None)
    patch.setattr(Subscription, "advance", lambda self, offset, epoch: _follow(self, offset))


def _no_position_check(patch: pytest.MonkeyPatch) -> None:
    """A lost link is shrugged off, and nobody compares positions with the stream."""
    patch.setattr(BrokerListener, "on_link_lost", lambda self, channels: None)
    patch.setattr(Subscription, "check", lambda self, top: None)


def _always_recovered(patch: pytest.MonkeyPatch) -> None:
    """Recovery claims success whatever history had."""
    patch.setattr(prepare, "recover_stream", lambda since, page: Recovery(True, page.publications))


def _never_recovered(patch: pytest.MonkeyPatch) -> None:
    """Recovery gives up although everything was there."""

    def give_up(since: StreamPosition, page: HistoryPage) -> Recovery:
        return Recovery(False, ())

    patch.setattr(prepare, "recover_stream", give_up)


def _live_too_early(patch: pytest.MonkeyPatch) -> None:
    """The subscription is live from the start, so publications overtake its reply."""
    init = Subscription.__init__

    def live(self: Subscription, *arguments: Any, **more: Any) -> None:
        init(self, *arguments, **more)
        self.phase = SubscriptionPhase.LIVE
        self.expected = subscription_module.ANY

    patch.setattr(Subscription, "__init__", live)
    assert HELD != subscription_module.ANY


def _epoch_ignored(patch: pytest.MonkeyPatch) -> None:
    """Recovery does not ask whether the stream is still the same one."""
    judge_stream = recovery.recover_stream

    def ignore(since: StreamPosition, page: HistoryPage) -> Recovery:
        return judge_stream(StreamPosition(since.offset, page.position.epoch), page)

    patch.setattr(prepare, "recover_stream", ignore)


def _overtaking_add(patch: pytest.MonkeyPatch) -> None:
    """The direct way does not look whether something waits already."""

    def overtake(self: Outbox, frame: bytes, write_batch: WriteBatch) -> None:
        transport = self._transport
        if transport is not None and transport.direct is not None:
            write_batch.transports.append(transport)
            write_batch.frames.append(frame)
        else:
            self.append(frame)

    patch.setattr(Outbox, "add_to", overtake)


def _rest_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What a socket does not take is dropped."""
    patch.setattr(Pipe, "write_rest", lambda self, data, sent: None)


def _rest_repeated(patch: pytest.MonkeyPatch) -> None:
    """What a socket does not take is sent from the start again."""
    patch.setattr(Pipe, "write_rest", lambda self, data, sent: self.write(data))


def _patches_for_everyone(patch: pytest.MonkeyPatch) -> None:
    """Whoever asked for patches gets one, whether it has what the patch starts from or not."""
    patch.setattr(Item, "base_for", lambda self, base, positioned: self.previous)


def _base_beyond_a_hole(patch: pytest.MonkeyPatch) -> None:
    """A patch from the stream's neighbour for who was given another publication last, since a filter lay between."""

    def base_for(self: Item, base: Publication | None, positioned: bool) -> Publication | None:
        return self.previous if base is not None else None

    patch.setattr(Item, "base_for", base_for)


def _recovery_starts_with_a_patch(patch: pytest.MonkeyPatch) -> None:
    """What is recovered starts from what the client had before it was cut off, which only it knows."""

    def remember_nothing(self: DeliveryStrategy, tags_filter: Any, codec: Any, conflation: Any) -> None:
        self.tags_filter, self.codec, self.conflation = tags_filter, codec, conflation
        self.base = Publication(Raw(b'"a publication of another time, and alike"'), offset=1)

    patch.setattr(DeliveryStrategy, "__init__", remember_nothing)


def _filtered_before_it_is_checked(patch: pytest.MonkeyPatch) -> None:
    """Continuity is judged by what is left after filtering."""
    judge_stream = recovery.recover_stream

    def judge(since: StreamPosition, page: HistoryPage) -> Recovery:
        left = [publication for publication in page.publications if (publication.tags or {}).get("kind") != "dull"]
        return judge_stream(since, HistoryPage(left, page.position))

    patch.setattr(prepare, "recover_stream", judge)


def _the_first_instead_of_the_last(patch: pytest.MonkeyPatch) -> None:
    """What came first stays what is owed, and the newer is left out."""
    hold = Conflation.hold

    def keep(self: Conflation, newest: Newest) -> None:
        first = self.held or newest.item
        hold(self, newest)
        self.held = first

    patch.setattr(Conflation, "hold", keep)


def _left_out_and_not_told(patch: pytest.MonkeyPatch) -> None:
    """What is replaced is forgotten."""
    take = Conflation.take
    patch.setattr(Conflation, "take", lambda self, now_s: HeldUpdate(take(self, now_s).item, 0))


def _never_paid(patch: pytest.MonkeyPatch) -> None:
    """A connection that takes something again is not told what it is owed."""

    def deliver_nothing(self: Hub, subscription: Subscription) -> None:
        pass

    patch.setattr(Hub, "deliver_held", deliver_nothing)


def _a_patch_across_what_was_left_out(patch: pytest.MonkeyPatch) -> None:
    """The newest as a patch from the neighbour that this client was never given."""
    alone = Item.single_frame

    def tell(self: Item, wire: Any, left_out: int, codec: Any, base: Any, patches: Any) -> Any:
        return alone(self, wire, left_out, codec, self.previous, patches)

    patch.setattr(Item, "single_frame", tell)


def _conflated_before_it_is_checked(patch: pytest.MonkeyPatch) -> None:
    """Recovery looks at the latest alone, which is always there."""
    judge_stream = recovery.recover_stream

    def judge(since: StreamPosition, page: HistoryPage) -> Recovery:
        return judge_stream(since, HistoryPage(page.publications[-1:], page.position))

    patch.setattr(prepare, "recover_stream", judge)


def _nothing_held_while_reading_on(patch: pytest.MonkeyPatch) -> None:
    """What is published while a later piece is read is dropped."""
    patch.setattr(Subscription, "hold_again", lambda self: None)
    patch.setattr(Subscription, "advance", lambda self, offset, epoch: _follow(self, offset))


def _live_after_the_first_piece(patch: pytest.MonkeyPatch) -> None:
    """What does not fit into the reply is taken for sent."""
    patch.setattr(Subscription, "fall_behind", lambda self, reached: None)


def _a_hole_between_pieces(patch: pytest.MonkeyPatch) -> None:
    """Nobody asks whether history still has what comes after a piece."""
    patch.setattr(recover, "read_on", lambda since, page: page.publications)


def _pieces_after_the_end(patch: pytest.MonkeyPatch) -> None:
    """A recovery goes on although its subscription has ended."""
    end = Subscription.end

    def keep(self: Subscription) -> None:
        reached = self.reached
        end(self)
        self.reached = reached

    patch.setattr(Subscription, "end", keep)


def _interrupted_and_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A walk that was interrupted does not reach those who are left."""
    continue_walks = Hub._continue_walks

    def forget(self: Hub) -> None:
        continue_walks(self)
        for _, room in self._walking:
            assert room.walk is not None
            room.walk.waiting.clear()

    patch.setattr(Hub, "_continue_walks", forget)
    patch.setattr(Subscription, "advance", lambda self, offset, epoch: _follow(self, offset))
    patch.setattr(Subscription, "check", lambda self, top: None)


def _overtaking_an_interrupted_walk(patch: pytest.MonkeyPatch) -> None:
    """What is published while a walk is interrupted does not wait for its end."""
    publish = Hub.publish

    def overtake(self: Hub, channel: str, publication: Publication, epoch: str, *more: Any) -> None:
        room = self._channels.get(channel)
        if room is None or room.walk is None:
            publish(self, channel, publication, epoch, *more)
            return
        batch = Batch([Item(PublicationPush(channel, publication), publication.offset, epoch, ())])
        for subscription in list(room.members()):
            self._selective.deliver_selected(batch, subscription)

    patch.setattr(Hub, "publish", overtake)
    patch.setattr(Subscription, "advance", lambda self, offset, epoch: _follow(self, offset))
    patch.setattr(Subscription, "check", lambda self, top: None)


BROKEN: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    _no_hold,
    _late_hold,
    _trusting_attach,
    _read_before_attach,
    _no_duplicate_check,
    _no_second_look,
    _deaf_to_lost_links,
    _no_position_check,
    _always_recovered,
    _never_recovered,
    _live_too_early,
    _epoch_ignored,
    _overtaking_add,
    _rest_forgotten,
    _rest_repeated,
    _patches_for_everyone,
    _base_beyond_a_hole,
    _recovery_starts_with_a_patch,
    _filtered_before_it_is_checked,
    _the_first_instead_of_the_last,
    _left_out_and_not_told,
    _never_paid,
    _a_patch_across_what_was_left_out,
    _conflated_before_it_is_checked,
    _nothing_held_while_reading_on,
    _live_after_the_first_piece,
    _a_hole_between_pieces,
    _pieces_after_the_end,
    _interrupted_and_forgotten,
    _overtaking_an_interrupted_walk,
)


@pytest.mark.parametrize("break_it", BROKEN, ids=lambda function: function.__name__.strip("_"))
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine")
def test_every_broken_variant_is_caught(break_it: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Leaving out any one step of the algorithm is noticed within 1,500 worlds, most of them within ten."""
    with pytest.MonkeyPatch.context() as patch:
        break_it(patch)
        for seed in range(1500):
            try:
                simulate(seed)
            except (Violation, AssertionError):
                gc.collect()  # here, where complaints of the coroutines of a world that broke off are ignored
                return
    raise AssertionError(f"1,500 worlds did not notice: {break_it.__doc__}")
