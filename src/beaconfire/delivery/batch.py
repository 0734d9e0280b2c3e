"""The items of one channel in one turn, and their frames, each made once for all subscriptions that share it.

Most subscribers of a channel get the same frame. Delivery strategies select items, or send them in another form.
Subscriptions with equal selections still share one frame, and what a strategy computes for one subscription, it keeps
in `Batch.shared` for all others.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Any, Final

from beaconfire.delivery.item import Item
from beaconfire.model.pushes import PublicationPush
from beaconfire.protocols.port import Frame, Wire

NO_OFFSET: Final = -3
"""`Batch.previous` of a batch that begins without an offset. No subscription has this offset."""

NOBODY: Final = -1
"""`Batch.whole_max` of a batch that is not uniform. Subscriptions have numbers above it."""


class Batch:
    """The items of one channel in one turn, at least one, and their frames per wire.

    A batch is *uniform* if every subscriber may get all of it: it holds publications only, without excluded clients,
    in one epoch, each of which names the one before as its predecessor (or publications without offsets).

    `previous` is the offset before the first item, and `last` the offset of the last item. Subscriptions with a number
    of at most `whole_max` were there before every item of a uniform batch. `everything` holds the indexes of all items.
    """

    __slots__ = ("_selections", "epoch", "everything", "frames", "items", "last", "previous", "shared", "whole_max")

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        first = items[0]
        self.previous = first.previous if first.offset else NO_OFFSET
        self.epoch = first.epoch
        uniform = type(first.push) is PublicationPush and not first.exclude
        if len(items) == 1:  # the usual case, with nothing to compare
            self.last = first.offset
            self.everything: tuple[int, ...] = (0,)
        else:
            self.last = items[-1].offset
            self.everything = tuple(range(len(items)))
            uniform = uniform and all(_continues(before, item) for before, item in pairwise(items))
        self.whole_max = first.number_max if uniform else NOBODY
        self.frames: dict[Wire, Frame] = {}
        self.shared: dict[Hashable, Any] = {}
        """Results that delivery strategies compute once for all their subscriptions. The class of the strategy is part
        of each key."""
        self._selections: dict[tuple[Wire, tuple[int, ...]], Frame] | None = None

    def frame(self, wire: Wire) -> Frame:
        """All items in one frame, kept in `frames`. Raises PayloadError."""
        frame = self.frames[wire] = wire.pack([item.payload(wire) for item in self.items])
        return frame

    def selection(self, wire: Wire, indexes: tuple[int, ...]) -> Frame:
        """Some items, at least one, in one frame. Raises PayloadError."""
        if indexes is self.everything:
            return self.frames.get(wire) or self.frame(wire)
        if self._selections is None:
            self._selections = {}
        key = (wire, indexes)
        frame = self._selections.get(key)
        if frame is None:
            frame = self._selections[key] = wire.pack([self.items[index].payload(wire) for index in indexes])
        return frame


def _continues(before: Item, item: Item) -> bool:
    """Whether a uniform batch may go on with this item."""
    return (
        type(item.push) is PublicationPush
        and not item.exclude
        and item.epoch == before.epoch
        and (item.previous == before.offset != 0 if item.offset else before.offset == 0)
    )
