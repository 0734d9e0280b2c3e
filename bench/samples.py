"""What was measured: one sample per measurement, a line of JSON each, and the few statistics that are made of them.

The machine drifts between rounds (clock rate, temperature, neighbours), so peers are never compared by their medians.
Each round has its own ratio, of two measurements made within seconds of each other, and the median of these counts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

Value = int | float | str

LOAD_BUSY_MIN = 0.9
"""From here on the load side counts as saturated, and the server as saturated too: CPU seconds per wall second."""

Variant = tuple[tuple[str, Value], ...]
"""A variant that can be a key of a dict: its items, sorted by name."""


class Sample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measurement of one peer.

    `round` counts from 0, and every peer runs round n before any runs round n + 1. `variant` says under which
    circumstances: `{"subscribers": 1000, "in_flight": 64, "codec": "json"}`. `metrics` have their units in their names;
    `cpu_us` and `per_second` are about the operation of the scenario, `bytes` about one connection, `load_busy` and
    `server_busy` are CPU seconds per wall second of all processes of either side.
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
    def circumstances(self) -> Variant:
        """What must be equal for two peers to be comparable: the variant, without the codec if that is a text.

        Peers have text protocols of their own, and these compete with JSON.
        """
        return tuple(item for item in freeze(self.variant) if self.is_binary or item[0] != "codec")


class Spread(msgspec.Struct, frozen=True):
    """Where the values of a metric lie: the median, the extremes, and the quartiles between which half of them are."""

    count: int
    least: float
    low: float
    median: float
    high: float
    greatest: float


def freeze(variant: Mapping[str, Value]) -> Variant:
    return tuple(sorted(variant.items()))


# --- the file -------------------------------------------------------------------------------------------------------


def append(path: Path, *samples: Sample) -> None:
    """Adds samples to a file, a line each, as soon as they are made; the file and its folder need not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b"".join(msgspec.json.encode(sample) + b"\n" for sample in samples))


def read(path: Path) -> list[Sample]:
    """The samples of a file in their order. Of one that was made again (same round and all) only the last counts.

    Raises ValueError, naming file and line, for a line that is no sample.
    """
    found: dict[tuple[str, str, Variant, int], Sample] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            sample = msgspec.json.decode(line, type=Sample)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}, line {number} is no sample: {error}") from error
        found[sample.scenario, sample.peer, freeze(sample.variant), sample.round] = sample
    return list(found.values())


# --- selecting ------------------------------------------------------------------------------------------------------


def select(
    samples: Iterable[Sample],
    scenario: str | None = None,
    peer: str | None = None,
    variant: Mapping[str, Value] | None = None,
) -> list[Sample]:
    """The samples of a scenario and a peer whose variant contains at least the given one; None takes any."""
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
    """The values of a metric, of those samples that have it."""
    return [sample.metrics[metric] for sample in samples if metric in sample.metrics]


# --- statistics -----------------------------------------------------------------------------------------------------


def median(samples: Iterable[Sample], metric: str) -> float | None:
    """The median of a metric, None if no sample has it."""
    found = values(samples, metric)
    return statistics.median(found) if found else None


def spread(samples: Iterable[Sample], metric: str) -> Spread | None:
    """Median, extremes and quartiles of a metric, None if no sample has it."""
    found = sorted(values(samples, metric))
    if not found:
        return None
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
    return Spread(len(found), found[0], low, middle, high, found[-1])


def ratios(
    numerator: Iterable[Sample], denominator: Iterable[Sample], metric: str, apart_from: Sequence[str] = ()
) -> list[float]:
    """The ratio of a metric in each round, between samples of the same scenario and circumstances.

    Circumstances named in `apart_from` may differ. Rounds that lack either side, or have nothing to divide by, are
    left out.
    """

    def place(sample: Sample) -> tuple[str, Variant, int]:
        return sample.scenario, tuple(item for item in sample.circumstances if item[0] not in apart_from), sample.round

    below = {place(sample): sample.metrics[metric] for sample in denominator if sample.metrics.get(metric)}
    pairs = ((sample.metrics[metric], below.get(place(sample))) for sample in numerator if metric in sample.metrics)
    found = (above / under for above, under in pairs if under is not None)
    return [value for value in found if math.isfinite(value)]


def ratio(samples: Sequence[Sample], numerator: str, denominator: str, metric: str) -> float | None:
    """How many times the denominator's value of a metric the numerator's is, both being names of peers.

    The median over rounds of each round's own ratio under the same circumstances; None if no round has both. Give it
    the samples of one variant (`select`), or it is a median over all variants.
    """
    found = ratios(select(samples, peer=numerator), select(samples, peer=denominator), metric)
    return statistics.median(found) if found else None
