"""Lanes: order within a lane, any order between lanes."""

from __future__ import annotations

import random
from functools import partial

from beaconfire.testing.lanes import Lanes


def fill(lanes: Lanes[str], taken: list[tuple[str, int]], names: str = "abc", count: int = 20) -> None:
    for number in range(count):
        for name in names:
            lanes.add(name, partial(taken.append, (name, number)))


def run_all(lanes: Lanes[str]) -> None:
    while len(lanes):
        lanes.take()()


def test_a_lane_keeps_its_order_and_lanes_are_mixed() -> None:
    """With the same seed, the order is the same."""
    orders = []
    for _ in range(2):
        lanes: Lanes[str] = Lanes(random.Random(7).random)
        taken: list[tuple[str, int]] = []
        fill(lanes, taken)
        assert len(lanes) == 60
        run_all(lanes)
        for name in "abc":
            assert [number for lane, number in taken if lane == name] == list(range(20))
        assert taken != sorted(taken, key=lambda entry: entry[1]), "the lanes are mixed"
        orders.append(taken)
    assert orders[0] == orders[1]


def test_dropped_lanes_are_empty() -> None:
    """The other lanes keep everything, and a dropped lane can be used again."""
    lanes: Lanes[str] = Lanes(random.Random(7).random)
    taken: list[tuple[str, int]] = []
    fill(lanes, taken, count=3)
    lanes.drop(lambda lane: lane != "b")
    assert len(lanes) == 3
    fill(lanes, taken, names="a", count=1)
    run_all(lanes)
    assert sorted(taken) == [("a", 0), ("b", 0), ("b", 1), ("b", 2)]
