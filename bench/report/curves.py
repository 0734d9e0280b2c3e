"""Computes plots from samples: a metric against the axis of a scenario, one line per peer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bench.report import catalogue, formatting
from bench.samples import Sample, Variant, freeze, median

PLOTTED = ("cpu_us", "bytes")
PLOTTED_LATENCIES = ("p50_us", "p99_us", "p999_us")


class Line(msgspec.Struct, frozen=True):
    """The curve of a peer: the median at each position of the axis, in ascending order."""

    peer: str
    label: str
    points: tuple[tuple[float, float], ...]


class Plot(msgspec.Struct, frozen=True):
    """A metric against an axis. `name` is the name of its file without the extension."""

    name: str
    title: str
    axis: str
    metric: str
    lines: tuple[Line, ...]


def plots(scenario: catalogue.ScenarioText, samples: Sequence[Sample], names: dict[str, str]) -> list[Plot]:
    """The plots of a scenario with an axis: one per plotted metric that was measured at two positions or more."""
    if scenario.axis is None:
        return []
    found = []
    for metric in PLOTTED_LATENCIES if scenario.name == "latency" else PLOTTED:
        lines = _lines(scenario.axis, [sample for sample in samples if metric in sample.metrics], metric, names)
        if any(len(line.points) > 1 for line in lines):
            title = f"{catalogue.metric(metric, scenario).title} by {scenario.axis}"
            title = title[0].upper() + title[1:]
            found.append(Plot(f"{scenario.name}-{metric}", title, _axis_title(scenario.axis), metric, lines))
    return found


def _lines(axis: str, samples: Sequence[Sample], metric: str, names: dict[str, str]) -> tuple[Line, ...]:
    curves: dict[tuple[str, Variant], dict[float, list[Sample]]] = {}
    for sample in samples:
        place = _place(sample, axis)
        if place is not None:
            rest = freeze({key: value for key, value in sample.variant.items() if key not in (axis, "load")})
            curves.setdefault((sample.peer, rest), {}).setdefault(place, []).append(sample)
    peers = [peer for peer, _ in curves]
    order = {name: rank for rank, name in enumerate(names)}
    lines = []
    for (peer, rest), places in sorted(curves.items(), key=lambda item: order[item[0][0]]):
        points = ((place, median(places[place], metric)) for place in sorted(places))
        # Only a peer with several lines needs labels that distinguish them.
        label = f"{names[peer]}, {formatting.variant(rest)}" if peers.count(peer) > 1 else names[peer]
        lines.append(Line(peer, label, tuple((place, value) for place, value in points if value is not None)))
    return tuple(lines)


def _place(sample: Sample, axis: str) -> float | None:
    """The position on the axis: from the variant, or else the measured rate. None if it is not above zero."""
    place = sample.variant.get(axis, sample.metrics.get("per_second") if axis == "rate" else None)
    return float(place) if isinstance(place, int | float) and place > 0 else None


def _axis_title(axis: str) -> str:
    return "messages per second" if axis == "rate" else axis.replace("_", " ")
