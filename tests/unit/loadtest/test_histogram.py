"""Percentiles of the histogram are close to those of the sorted durations."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from beaconfire.loadtest.histogram import Histogram, bucket, middle

DURATION_NS = st.integers(min_value=0, max_value=100_000_000_000)


@given(DURATION_NS)
def test_a_bucket_is_exact_to_half_a_percent(value_ns: int) -> None:
    """From nanoseconds to a hundred seconds."""
    assert abs(middle(bucket(value_ns)) - value_ns) <= value_ns * 0.005


@given(DURATION_NS, DURATION_NS)
def test_longer_durations_have_higher_buckets(one_ns: int, other_ns: int) -> None:
    """A longer duration is never in a lower bucket."""
    assert (bucket(one_ns) <= bucket(other_ns)) or one_ns > other_ns


@given(st.lists(DURATION_NS, min_size=1, max_size=200), st.sampled_from((0.5, 0.9, 0.99, 0.999, 1.0)))
def test_quantiles_are_the_nearest_rank(values_ns: list[int], share: float) -> None:
    """Of the sorted durations, within one percent."""
    histogram = Histogram()
    for value_ns in values_ns:
        histogram.record(value_ns)
    exact_ns = next(v for i, v in enumerate(sorted(values_ns), 1) if i >= share * len(values_ns))
    assert abs(histogram.quantile_ns(share) - exact_ns) <= exact_ns * 0.01
    assert histogram.count == len(values_ns)
    assert histogram.max_ns == max(values_ns)


@given(st.lists(DURATION_NS, max_size=50), st.lists(DURATION_NS, max_size=50))
def test_histograms_of_several_processes_add_up(first_ns: list[int], second_ns: list[int]) -> None:
    """The sum of two histograms is the histogram of all durations."""
    parts = [Histogram(), Histogram()]
    whole = Histogram()
    for part, values_ns in zip(parts, (first_ns, second_ns), strict=True):
        for value_ns in values_ns:
            part.record(value_ns)
            whole.record(value_ns)
    assert Histogram(part.counts() for part in parts).counts() == whole.counts()


def test_extreme_values() -> None:
    """No durations, a negative duration, and one beyond the last bucket."""
    histogram = Histogram()
    assert histogram.quantile_ns(0.99) == 0
    histogram.record(-5)
    assert histogram.quantile_ns(1) == 0
    histogram.record(1 << 50)
    assert histogram.max_ns == 1 << 50
    assert histogram.count == 2
