"""Only the publications whose tags pass a filter."""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.delivery.batch import Batch
from beaconfire.delivery.strategy import DeliveryStrategy, Layer, StrategyContext, Target
from beaconfire.delivery.tags_filter import TagsFilter
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush


class Filtered(Layer):
    """Hands on what passes the filter. Joins and leaves always pass."""

    __slots__ = ("_context", "tags_filter")

    def __init__(self, inner: DeliveryStrategy, tags_filter: TagsFilter, context: StrategyContext) -> None:
        super().__init__(inner)
        self.tags_filter = tags_filter
        self._context = context

    def deliver(self, batch: Batch, indexes: tuple[int, ...], target: Target) -> int:
        passing = passing_items(batch, self.tags_filter)
        if indexes is not batch.everything:
            passing = tuple(index for index in indexes if index in passing)
        self._context.filtered_total += len(indexes) - len(passing)
        return self.inner.deliver(batch, passing, target) if passing else 0

    def select(self, publications: Sequence[Publication]) -> Sequence[Publication]:
        passes = self.tags_filter.passes
        return self.inner.select([publication for publication in publications if passes(publication.tags)])


def passing_items(batch: Batch, tags_filter: TagsFilter) -> tuple[int, ...]:
    """The indexes of the items that pass the filter. Each filter is applied once to a batch."""
    key = (Filtered, tags_filter)
    passing: tuple[int, ...] | None = batch.shared.get(key)
    if passing is None:
        passing = tuple(
            index
            for index, item in enumerate(batch.items)
            if not isinstance(item.push, PublicationPush) or tags_filter.passes(item.push.pub.tags)
        )
        if len(passing) == len(batch.items):
            passing = batch.everything
        batch.shared[key] = passing
    return passing
