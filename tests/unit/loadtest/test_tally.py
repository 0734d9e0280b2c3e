"""Loss, duplicates and reordering are told apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from beaconfire.loadtest.tally import Arrival, Tally

NEW, REORDERED, DUPLICATE = Arrival


def arrivals(publishers: int, *messages: int) -> list[Arrival]:
    tally = Tally(publishers)
    return [tally.arrive(message) for message in messages]


def test_in_order() -> None:
    """All is new, also where some are missing."""
    assert arrivals(1, 0, 1, 2, 3) == [NEW] * 4
    assert arrivals(1, 0, 5, 9) == [NEW] * 3


def test_a_message_that_was_overtaken() -> None:
    """It is reordered when it comes, once; after that it is a duplicate."""
    assert arrivals(1, 0, 2, 1, 1, 3) == [NEW, NEW, REORDERED, DUPLICATE, NEW]
    assert arrivals(1, 9, 4, 0, 8, 4) == [NEW, REORDERED, REORDERED, REORDERED, DUPLICATE]


def test_twice() -> None:
    """The last one again, or an earlier one."""
    assert arrivals(1, 0, 0, 1, 0) == [NEW, DUPLICATE, NEW, DUPLICATE]


def test_publishers_may_overtake_each_other() -> None:
    """Order is promised for each of them: 1 and 3 come from the same one, 0 from another."""
    assert arrivals(2, 1, 3, 0, 2) == [NEW] * 4
    assert arrivals(2, 3, 1, 0) == [NEW, REORDERED, NEW]


@given(st.integers(min_value=1, max_value=8), st.lists(st.integers(min_value=0, max_value=60), max_size=120))
def test_each_message_counts_once(publishers: int, messages: list[int]) -> None:
    """In whatever order: the first time it is new or reordered, and from then on a duplicate."""
    seen: set[int] = set()
    tally = Tally(publishers)
    for message in messages:
        how = tally.arrive(message)
        assert (how is DUPLICATE) == (message in seen)
        overtaken = any(other > message and other % publishers == message % publishers for other in seen)
        if message not in seen:
            assert how is (REORDERED if overtaken else NEW)
        seen.add(message)
