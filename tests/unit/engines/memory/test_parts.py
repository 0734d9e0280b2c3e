"""The small parts of the memory engine: agenda, tail, tables, epochs, control bus."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.engines.memory import MemoryControlBus, MemoryControlStatistics, memory_engine, random_epoch
from beaconfire.engines.memory.agenda import Agenda
from beaconfire.engines.memory.ages import SLACK, Ages
from beaconfire.engines.memory.tables import shrink
from beaconfire.engines.memory.tail import Tail
from beaconfire.model.publication import Publication

from .support import HISTORY, KEPT, World, now


def taken(agenda: Agenda[str], now_s: float) -> set[str]:
    items: set[str] = set()
    while (item := agenda.take_due(now_s)) is not None:
        items.add(item)
    return items


def test_agenda_keeps_items_until_their_time() -> None:
    """Never early, at most a second late, each exactly once."""
    agenda: Agenda[str] = Agenda()
    for item, when_s in (("b", 11.0), ("a", 10.2), ("c", 11.9), ("d", 500.0)):
        agenda.add(item, when_s)
    assert len(agenda) == 4
    assert taken(agenda, 10.2) == set()
    assert taken(agenda, 11.2) == {"a"}
    assert taken(agenda, 12.0) == {"b", "c"}
    assert taken(agenda, 499.0) == set()
    assert taken(agenda, 10_000.0) == {"d"}
    assert len(agenda) == 0


def test_agenda_takes_the_past() -> None:
    """An item whose time is over when it is added comes out in the next round, or at the end of this second."""
    agenda: Agenda[str] = Agenda()
    agenda.add("past", 3.0)
    agenda.add("present", 10.5)
    assert taken(agenda, 10.5) == {"past"}
    assert taken(agenda, 11.0) == {"present"}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "first", "due"]), st.integers(0, 20)), max_size=60))
def test_agenda_agrees_with_a_list(steps: list[tuple[str, int]]) -> None:
    """Items that are added, removed and taken in any order come out once, those whose time is first in front."""
    agenda: Agenda[str] = Agenda()
    model: dict[str, int] = {}
    for step, (kind, number) in enumerate(steps):
        if kind == "add":
            model[str(step)] = agenda.add(str(step), float(number))
        elif kind == "remove":
            gone = list(model)[number % len(model)] if model else "nobody"
            agenda.remove(gone, model.pop(gone, number))
        else:
            item = agenda.take_first() if kind == "first" else agenda.take_due(float(number))
            first = min(model.values(), default=None)
            assert (item is None) == (first is None or (kind == "due" and first > number))
            assert item is None or model.pop(item) == first
        assert len(agenda) == len(model)
        assert agenda.is_due(10.0) == any(second <= 10 for second in model.values())


class Kept:
    """The offsets that a stream keeps."""

    def __init__(self) -> None:
        self.offsets: set[int] = set()

    @property
    def oldest(self) -> int:
        return min(self.offsets, default=1000)

    @oldest.setter
    def oldest(self, offset: int) -> None:
        raise AssertionError("nobody else sets it")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from("aaadoot"), st.integers(0, 3), st.integers(1, 9)), max_size=80))
def test_ages_agree_with_a_list(steps: list[tuple[str, int, int]]) -> None:
    """The oldest comes first, whatever goes for other reasons; tidying leaves a few entries for each that is kept."""
    ages: Ages[Kept] = Ages()
    streams = [Kept() for _ in range(4)]
    model: list[tuple[Kept, int]] = []
    tops = [0] * 4
    for kind, number, count in steps:
        stream = streams[number]
        if kind == "a":
            tops[number] += 1
            stream.offsets.add(tops[number])
            ages.add(stream, tops[number])
            model.append((stream, tops[number]))
        elif kind == "d" and stream.offsets:
            model.remove((stream, min(stream.offsets)))
            stream.offsets.remove(min(stream.offsets))
        elif kind == "o":
            oldest = ages.take_oldest()
            assert oldest is (model[0][0] if model else None)
            if oldest is not None:
                oldest.offsets.remove(model.pop(0)[1])
        else:
            more = ages.tidy(len(model), count)
            assert more == (len(ages) > SLACK * len(model))
        assert len(ages) >= len(model)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 50), st.integers(0, 40)), max_size=60))
def test_tail_agrees_with_a_list(steps: list[tuple[int, int, int]]) -> None:
    """Appending, dropping and reading, through many compactions, behave as on a plain list."""
    tail, model, top = Tail(), list[tuple[int, float]](), 0
    for kind, number, instant in steps:
        now_s = float(instant)
        if kind <= 1:
            for _ in range(number):
                top += 1
                tail.append(Publication(Raw(b"xy"), offset=top), now_s + number, top)
                model = [(offset, min(expires_s, now_s + number)) for offset, expires_s in model]
                model.append((top, now_s + number))
        elif kind == 2:
            count = min(number, len(model))
            assert tail.drop_oldest(count) == sum(offset for offset, _ in model[:count])
            model = model[count:]
        elif kind == 3:
            expected = [offset for offset, expires_s in model if expires_s > now_s and offset > number][:instant]
            assert [publication.offset for publication in tail.read_forward(now_s, instant, number, top)] == expected
        else:
            expected = [offset for offset, expires_s in model if expires_s > now_s and offset < number][::-1][:instant]
            assert [publication.offset for publication in tail.read_backward(now_s, instant, number, top)] == expected
        assert len(tail) == len(model)
        assert tail.count_expired(now_s) == sum(expires_s <= now_s for _, expires_s in model)
        assert tail.is_expired(now_s) == all(expires_s <= now_s for _, expires_s in model)


def test_tail_lets_go_of_what_it_dropped() -> None:
    """A dropped publication is free at once, even though its place in the row is not."""
    tail = Tail()
    first = Publication(Raw(b"1"), offset=1)
    references = sys.getrefcount(first)
    tail.append(first, 10.0, 1)
    tail.append(Publication(Raw(b"2"), offset=2), 10.0, 1)
    tail.drop_oldest(1)
    assert sys.getrefcount(first) == references


def test_shrink_gives_back_an_almost_empty_table() -> None:
    """What is left stays in its order; a table that is well used, or small, is left alone."""
    table = {number: str(number) for number in range(100_000)}
    full = sys.getsizeof(table)
    shrink(table)
    assert sys.getsizeof(table) == full
    for number in range(99_997):
        del table[number]
    assert sys.getsizeof(table) == full
    shrink(table)
    assert sys.getsizeof(table) < 1000
    assert list(table.items()) == [(number, str(number)) for number in (99_997, 99_998, 99_999)]


def test_random_epochs() -> None:
    """Eight letters, different each time."""
    epochs = {random_epoch() for _ in range(1000)}
    assert len(epochs) == 1000
    assert all(len(epoch) == 8 and epoch.isascii() and epoch.isalpha() for epoch in epochs)


def test_epochs_are_passed_in() -> None:
    """Whoever builds the engine may name its epochs, but not by the words that mean there is none."""
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


def test_control_needs_a_node() -> None:
    """Before start and after stop nobody would hear, which is an error and not silence."""
    control, handler = MemoryControlBus(), Handler()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not started"):
            now(control.broadcast(b"1"))
        with pytest.raises(RuntimeError, match="not started"):
            now(control.survey(b"1", 1.0))
        now(control.start(handler))
        with pytest.raises(RuntimeError, match="already"):
            now(control.start(handler))
        now(control.broadcast(b"2"))
        assert now(control.survey(b"ab", 1.0)) == [b"ba"]
        now(control.stop())
        now(control.stop())
    assert handler.heard == [b"2", b"2"]
    assert control.statistics() == MemoryControlStatistics(broadcasts_total=2, surveys_total=2)


def test_engines_know_nothing_of_each_other() -> None:
    """Two engines in one process share neither streams nor presence."""
    clock = ManualClock()
    one, other = memory_engine(clock), memory_engine(clock)
    first = now(one.broker.publish("a", Raw(b"1"), KEPT)).position
    second = now(other.broker.history("a", HISTORY, -1))
    assert list(second.publications) == []
    assert second.position.epoch != first.epoch


def test_an_agenda_keeps_nothing_for_seconds_that_became_empty() -> None:
    """However many items are removed before their time, of whatever seconds; those that stay come out in order."""
    agenda: Agenda[int] = Agenda()
    agenda.add(-1, 0.0)
    for item in range(5000):
        second = agenda.add(item, item)
        if item % 100:
            agenda.remove(item, second)
    for item in range(5000):  # of one second, again and again
        agenda.remove(item, agenda.add(item, 7777.0))
    assert len(agenda) == 51
    assert len(agenda._buckets) <= 51
    assert len(agenda._seconds) <= 200
    taken = [agenda.take_first() for _ in range(51)]
    assert taken[2:] == list(range(100, 5000, 100))
    assert agenda.take_first() is None
