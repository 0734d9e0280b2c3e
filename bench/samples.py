"""Samples: one per measurement, one line of JSON each, and their statistics.

The speed of the machine changes between rounds (clock rate, temperature, other virtual machines), so peers are not
compared by their medians. Each round has its own ratio of two measurements that were made within seconds of each other;
peers are compared by the median of these ratios.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

Value = int | float | str

LOAD_BUSY_MIN = 0.9
"""CPU seconds per wall second from which on a side, load or server, counts as saturated."""

Variant = tuple[tuple[str, Value], ...]
"""A variant as a dict key: its items, sorted by name."""


class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measurement of one peer.

    `round` counts from 0; all peers run round n before any peer runs round n + 1. `variant` are the conditions:
    `{"subscribers": 1000, "in_flight": 64, "codec": "json"}`. The names of `metrics` end with the unit. `cpu_us` and
    `per_second` are per operation of the scenario, `bytes` per connection; `load_busy` and `server_busy` are CPU
    seconds per wall second of all processes of that side.
    """

    scenario: str
    peer: str
    variant: dict[str, Value]
    round: int
    metrics: dict[str, float]

    @property
    def load_bound(self) -> bool:
        """Whether the load side was the bottleneck: the server could have done more."""
        return self.metrics.get("load_busy", 0.0) >= LOAD_BUSY_MIN > self.metrics.get("server_busy", 0.0)

    @property
    def is_binary(self) -> bool:
        """Whether it was measured with a binary protocol: JSON and protocols that are text of their own are not."""
        return self.variant.get("codec", "json") not in ("json", "text")

    @property
    def conditions(self) -> Variant:
        """The part of the variant that must be equal to compare two peers: everything except a text codec.

        Some peers have their own text protocols, which are compared with JSON.
        """
        return tuple(item for item in freeze(self.variant) if self.is_binary or item[0] != "codec")


class Spread(msgspec.Struct, frozen=True):
    """The distribution of a metric: minimum, first quartile, median, third quartile and maximum."""

    count: int
    minimum: float
    low: float
    median: float
    high: float
    maximum: float


def freeze(variant: Mapping[str, Value]) -> Variant:
    return tuple(sorted(variant.items()))


# --- the file -------------------------------------------------------------------------------------------------------


def append(path: Path, *samples: Sample) -> None:
    """Appends samples to a file, one line each. Creates the file and its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b"".join(msgspec.json.encode(sample) + b"\n" for sample in samples))


def read(path: Path) -> list[Sample]:
    """The samples of a file in their order. If a measurement was repeated in the same round, only the last one counts.

    Raises ValueError with file and line for a line that is not a sample.
    """
    found: dict[tuple[str, str, Variant, int], Sample] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            sample = msgspec.json.decode(line, type=Sample)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}, line {number} is not a sample: {error}") from error
        found[sample.scenario, sample.peer, freeze(sample.variant), sample.round] = sample
    return list(found.values())


# --- selecting ------------------------------------------------------------------------------------------------------


def select(
    samples: Iterable[Sample],
    scenario: str | None = None,
    peer: str | None = None,
    variant: Mapping[str, Value] | None = None,
) -> list[Sample]:
    """The samples of a scenario and a peer whose variant contains the given items. None matches everything."""
    wanted = (variant or {}).items()
    return [
        sample
        for sample in samples
        if scenario in (None, sample.scenario) and peer in (None, sample.peer) and wanted <= sample.variant.items()
    ]


def group(samples: Iterable[Sample]) -> dict[tuple[str, str, Variant], list[Sample]]:
    """The rounds of each measurement, by scenario, peer and variant, in order of first appearance."""
    groups: dict[tuple[str, str, Variant], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.scenario, sample.peer, freeze(sample.variant)), []).append(sample)
    return groups


def values(samples: Iterable[Sample], metric: str) -> list[float]:
    """The values of a metric in those samples that have it."""
    return [sample.metrics[metric] for sample in samples if metric in sample.metrics]


# --- statistics -----------------------------------------------------------------------------------------------------


def median(samples: Iterable[Sample], metric: str) -> float | None:
    """The median of a metric; None if no sample has it."""
    found = values(samples, metric)
    return statistics.median(found) if found else None


def spread(samples: Iterable[Sample], metric: str) -> Spread | None:
    """The distribution of a metric; None if no sample has it."""
    found = sorted(values(samples, metric))
    if not found:
        return None
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
    return Spread(len(found), found[0], low, middle, high, found[-1])


def ratios(
    numerator: Iterable[Sample], denominator: Iterable[Sample], metric: str, except_for: Sequence[str] = ()
) -> list[float]:
    """The ratio of a metric in each round, between samples of the same scenario and conditions.

    Conditions named in `except_for` may differ. Rounds that lack one side, or whose denominator is 0, are left out.
    """

    def key(sample: Sample) -> tuple[str, Variant, int]:
        return sample.scenario, tuple(item for item in sample.conditions if item[0] not in except_for), sample.round

    below = {key(sample): sample.metrics[metric] for sample in denominator if sample.metrics.get(metric)}
    pairs = ((sample.metrics[metric], below.get(key(sample))) for sample in numerator if metric in sample.metrics)
    found = (above / under for above, under in pairs if under is not None)
    return [value for value in found if math.isfinite(value)]


def ratio(samples: Sequence[Sample], numerator: str, denominator: str, metric: str) -> float | None:
    """The ratio of a metric between two peers, `numerator` and `denominator`.

    It is the median over rounds of each round's own ratio under the same conditions; None if no round has both. Pass
    the samples of one variant (`select`); otherwise the result is a median over all variants.
    """
    found = ratios(select(samples, peer=numerator), select(samples, peer=denominator), metric)
    return statistics.median(found) if found else None
