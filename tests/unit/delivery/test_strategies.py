"""Each delivery strategy alone, around a strategy that records its calls."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec import Raw

from beaconfire.base.errors import PayloadError
from beaconfire.delivery.batch import Batch
from beaconfire.delivery.conflated import Conflated
from beaconfire.delivery.filtered import Filtered
from beaconfire.delivery.item import Item
from beaconfire.delivery.patched import Patched
from beaconfire.delivery.plain import PLAIN
from beaconfire.delivery.strategy import DeliveryStrategy, Layer, Target
from beaconfire.delivery.subscription import Subscription
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.pushes import JoinPush, PublicationPush
from tests.unit.delivery.harness import FILTERS, WANTED, Reader, StrategyHarness, text


def publication(number: int, kind: str = "wanted", data: int | None = None) -> Publication:
    """Its offset is `number`. Texts of neighbours are alike, so `data` is the number of its text if it is another."""
    return Publication(Raw(text(number if data is None else data)), None, number, {"kind": kind})


def item(
    number: int, kind: str = "wanted", previous: int | None = None, delta: bool = True, data: int | None = None
) -> Item:
    before = number - 1 if previous is None else previous
    return Item(PublicationPush("news", publication(number, kind, data)), number, before, "e", (), 0, delta)


def join() -> Item:
    return Item(JoinPush("news", ClientInfo("ann", "c9")), 0, 0, "", (), 0)


def deliver(strategy: DeliveryStrategy, target: Target, *items: Item) -> int:
    batch = Batch(items)
    return strategy.deliver(batch, batch.everything, target)


class RecordingStrategy(DeliveryStrategy):
    """Records what it is asked to deliver, by offset, and the calls of its other methods."""

    def __init__(self) -> None:
        self.delivered: list[list[int]] = []
        self.calls: list[str] = []

    def deliver(self, batch: Batch, indexes: tuple[int, ...], target: Target) -> int:
        self.delivered.append([batch.items[index].offset for index in indexes])
        return len(indexes)

    def deliver_update(self, item: Item, left_out: int, target: Target) -> int:
        self.calls.append(f"update {item.offset} after {left_out}")
        return 1

    def select(self, publications: Sequence[Publication]) -> Sequence[Publication]:
        self.calls.append(f"select {[publication.offset for publication in publications]}")
        return publications

    def encode(self, channel: str, epoch: str, publications: Sequence[Publication]) -> Sequence[Publication]:
        self.calls.append(f"encode {len(publications)}")
        return publications

    def resume(self, target: Target) -> int:
        self.calls.append("resume")
        return 3

    def end(self, target: Target) -> None:
        self.calls.append("end")


class Bench:
    """A harness, one live subscription with a position, and a recording strategy."""

    def __init__(self) -> None:
        self.harness = StrategyHarness()
        self.context = self.harness.hub.context
        self.reader: Reader = self.harness.subscribe(None)
        self.target: Subscription = self.reader.subscription
        self.target.seen, self.target.epoch = 0, "e"
        self.inner = RecordingStrategy()

    def filtered(self) -> Filtered:
        return Filtered(self.inner, FILTERS.compile(WANTED), self.context)

    def conflated(self, max_rate: float) -> Conflated:
        return Conflated(self.inner, max_rate, self.context)

    def received(self) -> list[tuple[int, bool]]:
        """Offset of each publication that was written, and whether it is a patch."""
        self.harness.run_scheduled()
        return [(pub["offset"], "delta" in pub) for pub in self.reader.publications()]


# --- the port


@pytest.mark.parametrize("layer", [Layer, Filtered, Conflated])
def test_layer_hands_on_what_it_does_not_change(layer: type[Layer]) -> None:
    """The properties of the inner strategy, and the calls of its methods."""
    bench = Bench()
    codec = bench.harness.codec
    layers: dict[type[Layer], Layer] = {
        Layer: Layer(bench.inner),
        Filtered: bench.filtered(),
        Conflated: bench.conflated(0),
    }
    strategy, one = layers[layer], [publication(1)]
    assert deliver(strategy, bench.target, item(1)) == 1
    assert strategy.deliver_update(item(2), 4, bench.target) == 1
    assert list(strategy.select(one)) == one
    assert strategy.encode("news", "e", one) == one
    assert strategy.resume(bench.target) == (0 if layer is Conflated else 3)
    strategy.end(bench.target)
    assert bench.inner.delivered == [[1]]
    resumed = [] if layer is Conflated else ["resume"]
    assert bench.inner.calls == ["update 2 after 4", "select [1]", "encode 1", *resumed, "end"]
    assert (strategy.is_plain, strategy.has_patches, strategy.held_since) == (False, False, None)
    assert strategy.is_conflated is (layer is Conflated)
    strategy.inner = Conflated(Patched(codec, bench.context), 1, bench.context)
    assert (strategy.has_patches, strategy.is_conflated) == (True, True)


def test_plain_delivers_everything_at_once() -> None:
    """All items share the frame of the hub. There is nothing to select, encode, resume or end."""
    bench = Bench()
    batch, one = Batch([item(1), item(2)]), [publication(1)]
    assert PLAIN.deliver(batch, batch.everything, bench.target) == 2
    assert PLAIN.deliver(batch, (1,), bench.target) == 1
    assert PLAIN.deliver_update(item(7), 3, bench.target) == 1
    assert bench.received() == [(1, False), (2, False), (2, False), (7, False)]
    assert bench.reader.publications()[-1]["conflated"] == 3
    assert batch.frames.keys() == {bench.target.wire}
    assert (PLAIN.select(one), PLAIN.encode("news", "e", one), PLAIN.resume(bench.target)) == (one, one, 0)
    PLAIN.end(bench.target)
    assert (PLAIN.is_plain, PLAIN.has_patches, PLAIN.is_conflated, PLAIN.held_since) == (True, False, False, None)


def test_form_of_single_publications_must_be_chosen() -> None:
    """A new form that forgets it fails at once."""
    with pytest.raises(NotImplementedError):
        DeliveryStrategy().deliver_update(item(1), 0, Bench().target)


# --- filtered


def test_filter_passes_wanted_publications_and_all_joins() -> None:
    """If nothing passes, the inner strategy is not called. Filtered publications are counted."""
    bench = Bench()
    strategy = bench.filtered()
    assert deliver(strategy, bench.target, item(1), item(2, "unwanted"), join(), item(4)) == 3
    assert deliver(strategy, bench.target, item(5, "unwanted")) == 0
    assert bench.inner.delivered == [[1, 0, 4]]
    assert bench.context.filtered_total == 2


def test_filter_applies_to_a_selection_of_a_batch() -> None:
    """The client is excluded from some publications, for example."""
    bench = Bench()
    batch = Batch([item(1), item(2, "unwanted"), item(3)])
    assert bench.filtered().deliver(batch, (1, 2), bench.target) == 1
    assert bench.inner.delivered == [[3]]
    assert bench.context.filtered_total == 1


def test_filter_that_passes_everything_keeps_the_shared_frame() -> None:
    """The whole batch is handed on as such."""
    bench = Bench()
    batch = Batch([item(1), item(2)])
    Filtered(PLAIN, FILTERS.compile(WANTED), bench.context).deliver(batch, batch.everything, bench.target)
    assert batch.frames.keys() == {bench.target.wire}


def test_filter_selects_missed_publications() -> None:
    """Then the inner strategy selects among them."""
    bench = Bench()
    missed = [publication(1), publication(2, "unwanted"), publication(3)]
    assert [kept.offset for kept in bench.filtered().select(missed)] == [1, 3]
    assert bench.inner.calls == ["select [1, 3]"]


# --- patched


def test_patch_starts_from_the_last_publication_that_was_sent() -> None:
    """The first publication is whole. So is one whose predecessor the client does not have, or without permission."""
    bench = Bench()
    strategy = Patched(bench.harness.codec, bench.context)
    assert deliver(strategy, bench.target, item(1), join(), item(2)) == 3
    deliver(strategy, bench.target, item(4, previous=3))
    deliver(strategy, bench.target, item(9, previous=4, data=5))
    deliver(strategy, bench.target, item(10, delta=False, data=6))
    assert bench.received() == [(1, False), (2, True), (4, False), (9, True), (10, False)]
    assert bench.context.patches_total == 2


def test_joins_alone_need_no_patch() -> None:
    """They share the frame of the others, and the base stays."""
    bench = Bench()
    strategy = Patched(bench.harness.codec, bench.context)
    deliver(strategy, bench.target, item(1))
    deliver(strategy, bench.target, join())
    assert strategy.base == publication(1)


def test_recovered_publications_are_the_base_of_the_next_one() -> None:
    """Neighbours are sent as patches. An empty recovery changes nothing."""
    bench = Bench()
    strategy = Patched(bench.harness.codec, bench.context)
    assert strategy.encode("news", "e", []) == []
    encoded = strategy.encode("news", "e", [publication(3), publication(4)])
    assert [pub.delta for pub in encoded] == [False, True]
    deliver(strategy, bench.target, item(5))
    assert bench.received() == [(5, True)]


def test_base_does_not_move_if_a_publication_cannot_be_encoded() -> None:
    """Nothing was sent."""
    bench = Bench()
    strategy = Patched(bench.harness.codec, bench.context)
    deliver(strategy, bench.target, item(1))
    broken = Item(PublicationPush("news", Publication(Raw(b"\xff"), offset=2)), 2, 1, "e", (), 0, True)
    with pytest.raises(PayloadError):
        deliver(strategy, bench.target, broken)
    with pytest.raises(PayloadError):
        strategy.deliver_update(broken, 0, bench.target)
    assert strategy.base == publication(1)


def test_update_is_a_patch_if_nothing_was_left_out_since_the_base() -> None:
    """It is counted as a patch."""
    bench = Bench()
    strategy = Patched(bench.harness.codec, bench.context)
    for offset, left_out in ((1, 0), (2, 0), (5, 2)):
        assert strategy.deliver_update(item(offset), left_out, bench.target) == 1
    assert bench.received() == [(1, False), (2, True), (5, False)]
    assert bench.context.patches_total == 1


# --- conflated


def test_newest_publication_is_handed_on_when_it_is_due() -> None:
    """Joins are handed on at once. The position before what is held is known, also if offsets are left out."""
    bench = Bench()
    strategy = bench.conflated(1.0)
    assert deliver(strategy, bench.target, item(1)) == 1
    assert deliver(strategy, bench.target, item(5, previous=3), join(), item(6)) == 1
    assert (strategy.held_since, bench.inner.delivered) == (3, [[0]])
    bench.context.turn_s = 1.0
    assert strategy.resume(bench.target) == 1
    assert bench.inner.calls == ["update 1 after 0", "update 6 after 1"]
    assert (strategy.held_since, strategy.resume(bench.target)) == (None, 0)
    assert bench.context.conflated_total == 1


def test_conflated_subscription_is_scheduled_once_per_due_time() -> None:
    """However many publications replace the held one. The end removes it."""
    bench = Bench()
    strategy = bench.conflated(1.0)
    for number in range(1, 5):
        deliver(strategy, bench.target, item(number))
    assert len(bench.context.schedule) == 1
    for _ in range(2):
        strategy.end(bench.target)
    assert (len(bench.context.schedule), strategy.held_since) == (0, None)
    assert bench.inner.calls == ["update 1 after 0", "end", "end"]


def test_recovery_gets_the_newest_publication_and_delays_the_next_one() -> None:
    """An empty recovery delays nothing."""
    bench = Bench()
    strategy = bench.conflated(1.0)
    assert strategy.select([]) == []
    assert strategy.due_s == 0.0
    [newest] = strategy.select([publication(1), publication(2), publication(3)])
    assert (newest.offset, newest.conflated) == (3, 2)
    assert strategy.due_s == bench.context.now_s() + 1.0
    assert [kept.conflated for kept in strategy.select([publication(4)])] == [0]


def test_layers_can_be_combined() -> None:
    """The newest of the publications that pass the filter, as a patch."""
    bench = Bench()
    codec, context = bench.harness.codec, bench.context
    strategy = Filtered(Conflated(Patched(codec, context), 1.0, context), FILTERS.compile(WANTED), context)
    deliver(strategy, bench.target, item(1))
    deliver(strategy, bench.target, item(2), item(3, "unwanted"))
    context.turn_s = 1.0
    assert strategy.resume(bench.target) == 1
    assert bench.received() == [(1, False), (2, True)]
    assert (context.filtered_total, context.conflated_total, context.patches_total) == (1, 0, 1)
