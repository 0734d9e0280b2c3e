"""The rate search ends close to the highest rate that the server sustains."""

from __future__ import annotations

import pytest

from beaconfire.loadtest.search import PRECISION, RATE_MIN, STEPS_MAX, RateSearch


def find(limit: float, first: float) -> tuple[RateSearch, list[float]]:
    """A finished search against a server that sustains up to `limit`, and the rates that were tried."""
    search, tried = RateSearch(first), []
    while (rate := search.rate) is not None:
        tried.append(rate)
        search.record(rate <= limit)
    return search, tried


@pytest.mark.parametrize("limit", [1, 7, 99, 100, 101, 850, 12_345, 1e6])
@pytest.mark.parametrize("first", [1, 100, 5000])
def test_the_result_is_close_to_the_limit(limit: float, first: float) -> None:
    """The highest sustained rate is at most the limit, and lower by little more than the precision."""
    search, tried = find(limit, first)
    assert search.highest <= limit
    assert search.highest >= limit * (1 - 2 * PRECISION) or limit <= 2 * RATE_MIN
    assert len(tried) <= STEPS_MAX
    assert len(set(tried)) == len(tried)


def test_doubling_comes_first() -> None:
    """Then the middle between the highest sustained and the lowest failed rate."""
    assert find(350, 100)[1][:5] == [100, 200, 400, 300, 350]


def test_the_search_ends_without_a_limit() -> None:
    """Also if no rate or every rate is sustained."""
    assert find(0, 100)[0].highest == 0
    assert len(find(float("inf"), 1)[1]) == STEPS_MAX
