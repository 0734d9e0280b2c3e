"""The search ends, and near the limit."""

from __future__ import annotations

import pytest

from beaconfire.loadtest.search import PRECISION, RATE_MIN, STEPS_MAX, Search


def find(limit: float, first: float) -> tuple[Search, list[float]]:
    """A search against a server that holds up to `limit`, and the rates it tried."""
    search, tried = Search(first), []
    while (rate := search.rate) is not None:
        tried.append(rate)
        search.record(rate <= limit)
    return search, tried


@pytest.mark.parametrize("limit", [1, 7, 99, 100, 101, 850, 12_345, 1e6])
@pytest.mark.parametrize("first", [1, 100, 5000])
def test_it_comes_near(limit: float, first: float) -> None:
    """What held is at most the limit, and less by little more than the precision."""
    search, tried = find(limit, first)
    assert search.held <= limit
    assert search.held >= limit * (1 - 2 * PRECISION) or limit <= 2 * RATE_MIN
    assert len(tried) <= STEPS_MAX
    assert len(set(tried)) == len(tried)


def test_doubling_comes_first() -> None:
    """Then the middle between what held and what did not."""
    assert find(350, 100)[1][:5] == [100, 200, 400, 300, 350]


def test_nothing_holds_or_everything_does() -> None:
    """It ends all the same."""
    assert find(0, 100)[0].held == 0
    assert len(find(float("inf"), 1)[1]) == STEPS_MAX
