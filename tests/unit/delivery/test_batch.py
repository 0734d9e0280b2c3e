"""Batches: which are uniform, and which frames are shared."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.delivery.batch import NO_OFFSET, NOBODY, Batch
from beaconfire.delivery.item import GapMark, Item
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.pushes import JoinPush, PublicationPush
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from tests.fakes.transport import LineWire


def item(offset: int, previous: int, epoch: str = "e", exclude: tuple[str, ...] = (), number_max: int = 3) -> Item:
    push = PublicationPush("news", Publication(Raw(b"1"), offset=offset))
    return Item(push, offset, previous, epoch, exclude, number_max)


JOIN = Item(JoinPush("news", ClientInfo("ann", "c9")), 0, 0, "", (), 3)
GAP = Item(GapMark("news", "lost"), 0, 0, "", (), 3)
LIVE = item(0, 0, "")
"""A publication that is not stored."""


@pytest.mark.parametrize(
    "items",
    [
        [item(1, 0)],
        [item(5, 2), item(9, 5), item(10, 9)],
        [LIVE],
        [LIVE, LIVE],
    ],
)
def test_batch_is_uniform_if_each_publication_follows_the_one_before(items: list[Item]) -> None:
    """Or if none has an offset. Offsets need not rise by one."""
    batch = Batch(items)
    assert batch.whole_max == 3
    assert batch.previous == (items[0].previous if items[0].offset else NO_OFFSET)
    assert (batch.last, batch.everything) == (items[-1].offset, tuple(range(len(items))))


@pytest.mark.parametrize(
    "items",
    [
        [item(1, 0, exclude=("c1",))],
        [JOIN],
        [GAP],
        [item(1, 0), JOIN],
        [item(1, 0), item(2, 1, exclude=("c1",))],
        [item(1, 0), item(3, 2)],
        [item(1, 0), item(2, 1, epoch="f")],
        [LIVE, item(1, 0, "")],
        [item(1, 0, ""), LIVE],
    ],
)
def test_other_batches_are_not_uniform(items: list[Item]) -> None:
    """An excluded client, a join, a gap, a missing publication, another epoch, or a mixture."""
    assert Batch(items).whole_max == NOBODY


def test_whole_batch_is_for_those_who_were_there_before_its_first_item() -> None:
    """Others get only a part of it."""
    assert Batch([item(1, 0, number_max=3), item(2, 1, number_max=8)]).whole_max == 3


def test_equal_selections_share_a_frame() -> None:
    """A selection of everything is the frame that all others get."""
    wire = LineWire(JsonCodec())
    batch = Batch([item(1, 0), item(2, 1)])
    whole = batch.selection(wire, batch.everything)
    assert whole is batch.selection(wire, batch.everything) is batch.frames[wire]
    assert batch.selection(wire, (1,)) is batch.selection(wire, (1,))
    assert wire.packed == 2
