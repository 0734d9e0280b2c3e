"""Metric series: plain numbers that `prometheus_client` renders at each scrape.

The classes Counter and Histogram of `prometheus_client` lock and validate on every increment, which takes longer than
the rest of the handling of an event. Here all counting and scraping runs on the thread of the event loop, so locks are
not necessary.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as ExposedMetric
from prometheus_client.registry import Collector

from beaconfire.observe.metric_table import OTHER, Metric

SERIES_MAX = 1000
"""Label combinations per metric. Further combinations are counted together as `other`. Labels should never reach it."""


class Number:
    """One series of a counter or a gauge. Callers increment `value` directly."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Distribution:
    """One series of a histogram."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum: float = 0

    def observe(self, amount: float) -> None:
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._sum += amount

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Pairs of an upper bound and the count up to it, the last bound being +Inf; and the sum of all amounts."""
        bounds = (*map(str, self._bounds), "+Inf")
        return list(zip(bounds, accumulate(self._counts), strict=True)), self._sum


Series = TypeVar("Series", Number, Distribution)


class Family(Generic[Series]):
    """All series of one metric."""

    def __init__(self, metric: Metric, create: Callable[[], Series]) -> None:
        self.metric = metric
        self._create: Callable[[], Series] = create
        self._series: dict[tuple[str, ...], Series] = {}
        if not metric.labels:
            self.series()

    def series(self, *values: str) -> Series:
        """The series with these label values, in the order of the table. Creates the series if it is new.

        This lookup is slow, so callers keep the result. Beyond `SERIES_MAX` all new combinations share one series,
        whose labels are all `other`.
        """
        series = self._series.get(values)
        if series is None:
            assert len(values) == len(self.metric.labels), f"{self.metric.name} has labels {self.metric.labels}"
            if len(self._series) >= SERIES_MAX:
                values = (OTHER,) * len(values)
            series = self._series.setdefault(values, self._create())
        return series

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], Series]]:
        return iter(self._series.items())


class Families(Collector):
    """All families of a table, as a collector for a `prometheus_client` registry."""

    def __init__(self, metrics: Iterable[Metric], refresh: Callable[[], None]) -> None:
        """`refresh` is called at the start of each scrape. It sets the metrics that are read instead of counted."""
        self._refresh = refresh
        self._numbers: dict[str, Family[Number]] = {}
        self._distributions: dict[str, Family[Distribution]] = {}
        self._metrics = tuple(metrics)
        for metric in self._metrics:
            if metric.kind == "histogram":
                self._distributions[metric.name] = Family(metric, partial(Distribution, metric.buckets))
            else:
                self._numbers[metric.name] = Family(metric, Number)

    def numbers(self, name: str) -> Family[Number]:
        """The counter or gauge with this name. Raises KeyError if the table does not contain it."""
        return self._numbers[name]

    def distributions(self, name: str) -> Family[Distribution]:
        """The histogram with this name. Raises KeyError if the table does not contain it."""
        return self._distributions[name]

    def describe(self) -> Iterable[ExposedMetric]:
        return [_exposed(metric) for metric in self._metrics]

    def collect(self) -> Iterable[ExposedMetric]:
        self._refresh()
        for metric in self._metrics:
            exposed = _exposed(metric)
            if isinstance(exposed, HistogramMetricFamily):
                for values, distribution in self._distributions[metric.name]:
                    buckets, total = distribution.cumulative()
                    exposed.add_metric(values, buckets, total)
            else:
                for values, number in self._numbers[metric.name]:
                    exposed.add_metric(values, number.value)
            yield exposed


def _exposed(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    if metric.kind == "histogram":
        return HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    if metric.kind == "counter":
        return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
