"""Missing, duplicate and reordered messages are distinguished."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from beaconfire.loadtest.sequence import DeliveryStatus, SequenceChecker

NEW, REORDERED, DUPLICATE = DeliveryStatus


def check(publishers: int, *messages: int) -> list[DeliveryStatus]:
    checker = SequenceChecker(publishers)
    return [checker.check(message) for message in messages]


def test_messages_in_order_are_new() -> None:
    """Also if some are missing."""
    assert check(1, 0, 1, 2, 3) == [NEW] * 4
    assert check(1, 0, 5, 9) == [NEW] * 3


def test_an_overtaken_message_is_reordered_once() -> None:
    """The second time it is a duplicate."""
    assert check(1, 0, 2, 1, 1, 3) == [NEW, NEW, REORDERED, DUPLICATE, NEW]
    assert check(1, 9, 4, 0, 8, 4) == [NEW, REORDERED, REORDERED, REORDERED, DUPLICATE]


def test_a_repeated_message_is_a_duplicate() -> None:
    """The last message or an earlier one."""
    assert check(1, 0, 0, 1, 0) == [NEW, DUPLICATE, NEW, DUPLICATE]


def test_order_between_publishers_does_not_matter() -> None:
    """Messages 1 and 3 come from one publisher, messages 0 and 2 from another one."""
    assert check(2, 1, 3, 0, 2) == [NEW] * 4
    assert check(2, 3, 1, 0) == [NEW, REORDERED, NEW]


@given(st.integers(min_value=1, max_value=8), st.lists(st.integers(min_value=0, max_value=60), max_size=120))
def test_each_message_counts_once(publishers: int, messages: list[int]) -> None:
    """In any order: the first time a message is new or reordered, after that it is a duplicate."""
    seen: set[int] = set()
    checker = SequenceChecker(publishers)
    for message in messages:
        status = checker.check(message)
        assert (status is DUPLICATE) == (message in seen)
        overtaken = any(other > message and other % publishers == message % publishers for other in seen)
        if message not in seen:
            assert status is (REORDERED if overtaken else NEW)
        seen.add(message)
