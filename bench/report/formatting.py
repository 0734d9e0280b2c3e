"""Formats numbers: three significant digits and a suitable unit."""

from __future__ import annotations

import math
from collections.abc import Iterable

from bench.samples import Spread, Value

_UNITS = {
    "_us": ((1e6, "s"), (1e3, "ms"), (1.0, "µs")),
    "bytes": ((2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
    "_c_loop": ((1.0, "× C loop"),),
    "per_second": ((1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")),
}
"""By suffix of a metric's name: its units with their sizes, the largest first."""
_PLAIN = ((1.0, ""),)
_WORDS = {"json": "JSON", "protobuf": "Protobuf", "text": "own text protocol"}


def digits(value: float) -> str:
    """Three significant digits, or more before the decimal point, with thousands separators."""
    places = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{max(0, places)}f}"


def quantity(metric: str, value: float) -> str:
    """A value of a metric with a unit that its name determines: `7.06 µs`, `4.20 M/s`, `8.50 KiB`, `98 %`."""
    if metric.endswith("_busy"):
        return f"{value * 100:.0f} %"
    scale, unit = _unit(metric, value)
    return f"{digits(value / scale)} {unit}".rstrip()


def interval(metric: str, spread: Spread) -> str:
    """Minimum, quartiles and maximum in the unit that `quantity` uses for the median: `6 [7 8] 9`."""
    scale, _ = _unit(metric, spread.median)
    minimum, low, high, maximum = (
        digits(value / scale) for value in (spread.minimum, spread.low, spread.high, spread.maximum)
    )
    return f"{minimum} [{low} {high}] {maximum}"


def times(ratio: float) -> str:
    return f"{digits(ratio)}×"


def count(value: float) -> str:
    """A short number for an axis: `100`, `15k`, `2.5M`."""
    for scale, unit in ((1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.3g}"


def tick(metric: str, value: float) -> str:
    """A value of a metric on an axis: `7 µs`, `2.5 ms`, `0`."""
    if not value:
        return "0"
    scale, unit = _unit(metric, value)
    return f"{value / scale:.3g} {unit}".rstrip()


def variant(items: Iterable[tuple[str, Value]]) -> str:
    """The items of a variant on one line: `1,000 subscribers · 64 in flight · JSON`."""
    return " · ".join(_condition(name, value) for name, value in items)


def _condition(name: str, value: Value) -> str:
    if name == "codec":
        return _WORDS.get(str(value), str(value))
    if name == "rate" and not isinstance(value, str):
        return quantity("per_second", value)
    words = name.replace("_", " ")
    if name in ("load", "kind", "batch") or isinstance(value, str):
        return f"{words}: {value}"
    return f"{value:,} {words}"


def _unit(metric: str, value: float) -> tuple[float, str]:
    """The largest unit of the metric that is not larger than the value; otherwise the smallest unit."""
    units = next((units for ending, units in _UNITS.items() if metric.endswith(ending)), _PLAIN)
    return next((entry for entry in units if abs(value) >= entry[0]), units[-1])
