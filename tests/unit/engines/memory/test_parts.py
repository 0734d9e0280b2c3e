"""The parts of the memory engine: expiry buckets, storage order, retained publications, dictionaries, epochs, control
bus.
"""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.engines.memory import MemoryControlBus, MemoryControlStatistics, memory_engine, random_epoch
from beaconfire.engines.memory.dicts import shrink_dict
from beaconfire.engines.memory.expiry import ExpiryBuckets
from beaconfire.engines.memory.retained import RetainedPublications
from beaconfire.engines.memory.storage_order import ENTRIES_PER_PUBLICATION_MAX, StorageOrder
from beaconfire.model.publication import Publication

from .support import HISTORY, KEPT, World, now


def taken(buckets: ExpiryBuckets[str], now_s: float) -> set[str]:
    items: set[str] = set()
    while (item := buckets.take_due(now_s)) is not None:
        items.add(item)
    return items


def test_buckets_keep_items_until_they_are_due() -> None:
    """Never early, at most a second late, each exactly once."""
    buckets: ExpiryBuckets[str] = ExpiryBuckets()
    for item, when_s in (("b", 11.0), ("a", 10.2), ("c", 11.9), ("d", 500.0)):
        buckets.add(item, when_s)
    assert len(buckets) == 4
    assert taken(buckets, 10.2) == set()
    assert taken(buckets, 11.2) == {"a"}
    assert taken(buckets, 12.0) == {"b", "c"}
    assert taken(buckets, 499.0) == set()
    assert taken(buckets, 10_000.0) == {"d"}
    assert len(buckets) == 0


def test_buckets_accept_times_in_the_past() -> None:
    """An item whose time is already over is due immediately, or at the end of the current second."""
    buckets: ExpiryBuckets[str] = ExpiryBuckets()
    buckets.add("past", 3.0)
    buckets.add("present", 10.5)
    assert taken(buckets, 10.5) == {"past"}
    assert taken(buckets, 11.0) == {"present"}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "first", "due"]), st.integers(0, 20)), max_size=60))
def test_buckets_agree_with_a_list(steps: list[tuple[str, int]]) -> None:
    """Items that are added, removed and taken in any order are taken once, those with the earliest second first."""
    buckets: ExpiryBuckets[str] = ExpiryBuckets()
    model: dict[str, int] = {}
    for step, (kind, number) in enumerate(steps):
        if kind == "add":
            model[str(step)] = buckets.add(str(step), float(number))
        elif kind == "remove":
            gone = list(model)[number % len(model)] if model else "unknown"
            buckets.remove(gone, model.pop(gone, number))
        else:
            item = buckets.take_first() if kind == "first" else buckets.take_due(float(number))
            first = min(model.values(), default=None)
            assert (item is None) == (first is None or (kind == "due" and first > number))
            assert item is None or model.pop(item) == first
        assert len(buckets) == len(model)
        assert buckets.is_due(10.0) == any(second <= 10 for second in model.values())


class ModelStream:
    """A stream as a set of retained offsets."""

    def __init__(self) -> None:
        self.offsets: set[int] = set()

    @property
    def oldest(self) -> int:
        return min(self.offsets, default=1000)

    @oldest.setter
    def oldest(self, offset: int) -> None:
        raise AssertionError("StorageOrder only reads it")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from("aaadoot"), st.integers(0, 3), st.integers(1, 9)), max_size=80))
def test_storage_order_agrees_with_a_list(steps: list[tuple[str, int, int]]) -> None:
    """The oldest publication comes first, even if others were removed for other reasons. `remove_stale` leaves a few
    entries for each retained publication.
    """
    order: StorageOrder[ModelStream] = StorageOrder()
    streams = [ModelStream() for _ in range(4)]
    model: list[tuple[ModelStream, int]] = []
    tops = [0] * 4
    for kind, number, count in steps:
        stream = streams[number]
        if kind == "a":
            tops[number] += 1
            stream.offsets.add(tops[number])
            order.add(stream, tops[number])
            model.append((stream, tops[number]))
        elif kind == "d" and stream.offsets:
            model.remove((stream, min(stream.offsets)))
            stream.offsets.remove(min(stream.offsets))
        elif kind == "o":
            oldest = order.take_oldest()
            assert oldest is (model[0][0] if model else None)
            if oldest is not None:
                oldest.offsets.remove(model.pop(0)[1])
        else:
            more = order.remove_stale(len(model), count)
            assert more == (len(order) > ENTRIES_PER_PUBLICATION_MAX * len(model))
        assert len(order) >= len(model)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 50), st.integers(0, 40)), max_size=60))
def test_retained_publications_agree_with_a_list(steps: list[tuple[int, int, int]]) -> None:
    """Appending, dropping and reading behave as on a plain list, also across many compactions."""
    retained, model, top = RetainedPublications(), list[tuple[int, float]](), 0
    for kind, number, instant in steps:
        now_s = float(instant)
        if kind <= 1:
            for _ in range(number):
                top += 1
                retained.append(Publication(Raw(b"xy"), offset=top), now_s + number, top)
                model = [(offset, min(expires_s, now_s + number)) for offset, expires_s in model]
                model.append((top, now_s + number))
        elif kind == 2:
            count = min(number, len(model))
            assert retained.drop_oldest(count) == sum(offset for offset, _ in model[:count])
            model = model[count:]
        elif kind == 3:
            expected = [offset for offset, expires_s in model if expires_s > now_s and offset > number][:instant]
            assert [
                publication.offset for publication in retained.read_forward(now_s, instant, number, top)
            ] == expected
        else:
            expected = [offset for offset, expires_s in model if expires_s > now_s and offset < number][::-1][:instant]
            assert [
                publication.offset for publication in retained.read_backward(now_s, instant, number, top)
            ] == expected
        assert len(retained) == len(model)
        assert retained.count_expired(now_s) == sum(expires_s <= now_s for _, expires_s in model)
        assert retained.is_expired(now_s) == all(expires_s <= now_s for _, expires_s in model)


def test_a_dropped_publication_is_freed_immediately() -> None:
    """Even though its list entry still exists."""
    retained = RetainedPublications()
    first = Publication(Raw(b"1"), offset=1)
    references = sys.getrefcount(first)
    retained.append(first, 10.0, 1)
    retained.append(Publication(Raw(b"2"), offset=2), 10.0, 1)
    retained.drop_oldest(1)
    assert sys.getrefcount(first) == references


def test_shrink_dict_frees_an_almost_empty_dictionary() -> None:
    """The entries keep their order. A dictionary that is small or well used is left alone."""
    table = {number: str(number) for number in range(100_000)}
    full = sys.getsizeof(table)
    shrink_dict(table)
    assert sys.getsizeof(table) == full
    for number in range(99_997):
        del table[number]
    assert sys.getsizeof(table) == full
    shrink_dict(table)
    assert sys.getsizeof(table) < 1000
    assert list(table.items()) == [(number, str(number)) for number in (99_997, 99_998, 99_999)]


def test_random_epochs() -> None:
    """An epoch has eight letters and differs each time."""
    epochs = {random_epoch() for _ in range(1000)}
    assert len(epochs) == 1000
    assert all(len(epoch) == 8 and epoch.isascii() and epoch.isalpha() for epoch in epochs)


def test_the_source_of_epochs_is_an_argument() -> None:
    """The reserved names for "no epoch" are rejected."""
    names = iter(["first", "second", "_"])
    world = World()
    engine = memory_engine(world.clock, new_epoch=lambda: next(names))
    assert now(engine.broker.publish("a", Raw(b"1"), KEPT)).position == (1, "first")
    assert now(engine.broker.history("b", HISTORY, 0)).position == (0, "second")
    with pytest.raises(AssertionError, match="not an epoch"):
        now(engine.broker.history("c", HISTORY, 0))


class Handler:
    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def on_control(self, message: bytes) -> None:
        self.heard.append(message)

    def on_survey(self, request: bytes) -> bytes:
        return request[::-1]


def test_the_control_bus_works_only_while_started() -> None:
    """Before `start` and after `stop` calls raise an error."""
    control, handler = MemoryControlBus(), Handler()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not started"):
            now(control.broadcast(b"1"))
        with pytest.raises(RuntimeError, match="not started"):
            now(control.survey(b"1", 1.0))
        with pytest.raises(RuntimeError, match="not started"):
            now(control.send("uid", b"1"))
        with pytest.raises(RuntimeError, match="not started"):
            now(control.nodes())
        now(control.start("uid", handler))
        with pytest.raises(RuntimeError, match="already"):
            now(control.start("uid", handler))
        now(control.broadcast(b"2"))
        assert now(control.send("uid", b"3"))
        assert not now(control.send("another", b"4"))
        assert now(control.survey(b"ab", 1.0)) == [b"ba"]
        now(control.stop())
        now(control.stop())
    assert handler.heard == [b"2", b"3", b"2", b"3"]
    assert control.statistics() == MemoryControlStatistics(broadcasts_total=2, sends_total=2, surveys_total=2)


def test_engines_share_no_data() -> None:
    """Two engines in one process share neither streams nor presence."""
    clock = ManualClock()
    one, other = memory_engine(clock), memory_engine(clock)
    first = now(one.broker.publish("a", Raw(b"1"), KEPT)).position
    second = now(other.broker.history("a", HISTORY, -1))
    assert list(second.publications) == []
    assert second.position.epoch != first.epoch


def test_buckets_keep_no_memory_for_seconds_that_became_empty() -> None:
    """Even if many items are removed before they are due. The remaining items are taken in order."""
    buckets: ExpiryBuckets[int] = ExpiryBuckets()
    buckets.add(-1, 0.0)
    for item in range(5000):
        second = buckets.add(item, item)
        if item % 100:
            buckets.remove(item, second)
    for item in range(5000):  # Again and again in the same second.
        buckets.remove(item, buckets.add(item, 7777.0))
    assert len(buckets) == 51
    assert len(buckets._buckets) <= 51
    assert len(buckets._seconds) <= 200
    taken = [buckets.take_first() for _ in range(51)]
    assert taken[2:] == list(range(100, 5000, 100))
    assert buckets.take_first() is None
