"""The goals: how Beaconfire must compare with its peers. Each goal is computed from the samples alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

import msgspec

from bench.samples import Sample, Value, ratios, select, values

Outcome = Literal["met", "missed", "not measured"]
Unit = Literal["x", "bytes", "us"]

OURS = "beaconfire"
WITH_WORKERS = "beaconfire-2-workers"
"""Two workers, the number of cores that Centrifugo uses on the machine of the report."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a comparison: a peer, and the items of its variant that the goal does not have for both sides."""

    peer: str = OURS
    variant: dict[str, Value] = {}


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of a scenario, compared with a threshold.

    With `under`, the value is the ratio of `over` to `under`: the median over rounds of each round's own ratio.
    Without `under`, the value is the metric of `over`, in `unit`: its median, or its highest value for a maximum.
    A goal is met if the value is at most (`<=`) or at least (`>=`) the threshold.
    """

    key: str
    text: str
    scenario: str
    metric: str
    variant: dict[str, Value] = {}
    over: Side = Side()
    under: Side | None = None
    direction: Literal["<=", ">="] = "<="
    threshold: float
    unit: Unit = "x"

    @property
    def formula(self) -> str:
        """How the value is computed, with the names of the samples."""
        if self.under is None:
            compared = f"{'highest' if self.is_maximum else 'median'} {self.metric}: {_name(self.over)}"
        else:
            compared = f"{self.metric}: {_name(self.over)} / {_name(self.under)}"
        return " · ".join([compared, ", ".join([self.scenario, *_settings(self.variant)])])

    @property
    def is_maximum(self) -> bool:
        """Whether the value is the highest of all rounds: a median says little about what must never happen."""
        return self.under is None and self.metric == "max_us"


class Verdict(msgspec.Struct, frozen=True):
    """The value of a goal, the number of rounds, and whether the goal is met.

    `load_bound` are peers whose measurement was limited by the load side in some round: they can do more than that.
    """

    goal: Goal
    value: float | None
    outcome: Outcome
    rounds: int
    load_bound: tuple[str, ...]


def judge(goal: Goal, samples: Sequence[Sample]) -> Verdict:
    """Computes the value of a goal and compares it with the threshold. Without samples of both sides: not measured."""
    over, under = (_samples(goal, side, samples) if side is not None else [] for side in (goal.over, goal.under))
    if goal.under is None:
        found = values(over, goal.metric)
    else:
        except_for = tuple({**goal.over.variant, **goal.under.variant})
        found = ratios(over, under, goal.metric, except_for)
    if not found:
        return Verdict(goal, None, "not measured", 0, ())
    value = max(found) if goal.is_maximum else statistics.median(found)
    met = value <= goal.threshold if goal.direction == "<=" else value >= goal.threshold
    load_bound = tuple(dict.fromkeys(sample.peer for sample in [*over, *under] if sample.load_bound))
    return Verdict(goal, value, "met" if met else "missed", len(found), load_bound)


def _samples(goal: Goal, side: Side, samples: Sequence[Sample]) -> list[Sample]:
    """The samples of a side. Only text protocols, which every peer has, unless the goal names a codec."""
    variant = {**goal.variant, **side.variant}
    found = select(samples, goal.scenario, side.peer, variant)
    return found if "codec" in variant else [sample for sample in found if not sample.is_binary]


def _name(side: Side) -> str:
    return f"{side.peer} ({', '.join(_settings(side.variant))})" if side.variant else side.peer


def _settings(variant: dict[str, Value]) -> list[str]:
    return [f"{name} = {value}" for name, value in variant.items()]


# --- the table ------------------------------------------------------------------------------------------------------

_ONE_IN_FLIGHT: dict[str, Value] = {"subscribers": 1000, "in_flight": 1}
_MANY_IN_FLIGHT: dict[str, Value] = {"subscribers": 1000, "in_flight": 64}

_HEADLINES = (
    Goal(
        key="fanout-cpu-c-loop",
        text="CPU per delivery, 1,000 subscribers, one message in flight",
        scenario="ceiling",
        metric="times_c_loop",
        variant=_ONE_IN_FLIGHT,
        threshold=1.15,
    ),
    Goal(
        key="fanout-cpu-centrifugo",
        text="CPU per delivery, 1,000 subscribers, one message in flight",
        scenario="fanout",
        metric="cpu_us",
        variant=_ONE_IN_FLIGHT,
        under=Side(peer="centrifugo"),
        threshold=0.7,
    ),
    Goal(
        key="fanout-rate-c-loop",
        text="Deliveries per second, 1,000 subscribers, 64 messages in flight",
        scenario="fanout",
        metric="per_second",
        variant=_MANY_IN_FLIGHT,
        under=Side(peer="c-loop"),
        direction=">=",
        threshold=15,
    ),
    Goal(
        key="fanout-rate-centrifugo",
        text="Deliveries per second, 1,000 subscribers, 64 messages in flight",
        scenario="fanout",
        metric="per_second",
        variant=_MANY_IN_FLIGHT,
        under=Side(peer="centrifugo"),
        direction=">=",
        threshold=2,
    ),
    Goal(
        key="rooms-rate-centrifugo",
        text="Messages per second, 1,000 rooms of 10, all members publish",
        scenario="rooms",
        metric="per_second",
        under=Side(peer="centrifugo"),
        direction=">=",
        threshold=1.0,
    ),
    Goal(
        key="one-to-one-rate-centrifugo",
        text="Messages per second, one to one, acknowledged",
        scenario="one_to_one",
        metric="per_second",
        under=Side(peer="centrifugo"),
        direction=">=",
        threshold=1.0,
    ),
    Goal(
        key="api-cpu-centrifugo",
        text="CPU per publish request of the HTTP API",
        scenario="api",
        metric="cpu_us",
        variant={"batch": 1},
        under=Side(peer="centrifugo"),
        threshold=0.8,
    ),
    Goal(
        key="connect-cpu-centrifugo",
        text="CPU per connection: connect, verify the JWT, subscribe",
        scenario="connect",
        metric="cpu_us",
        variant={"kind": "steady"},
        under=Side(peer="centrifugo"),
        threshold=1.0,
    ),
    Goal(
        key="memory-bytes",
        text="Resident memory per idle, authenticated, subscribed connection",
        scenario="memory",
        metric="bytes",
        threshold=10240,
        unit="bytes",
    ),
    Goal(
        key="memory-bytes-centrifugo",
        text="Resident memory per idle, authenticated, subscribed connection",
        scenario="memory",
        metric="bytes",
        under=Side(peer="centrifugo"),
        threshold=0.5,
    ),
    Goal(
        key="latency-p99-centrifugo",
        text="Latency, 99th percentile, at half the rate that saturates Centrifugo",
        scenario="latency",
        metric="p99_us",
        variant={"load": "half"},
        under=Side(peer="centrifugo"),
        threshold=1.0,
    ),
)

_WORKERS = (
    Goal(
        key="workers-one-to-one-rate-centrifugo",
        text="Messages per second, one to one, acknowledged, with two workers",
        scenario="one_to_one",
        metric="per_second",
        over=Side(peer=WITH_WORKERS),
        under=Side(peer="centrifugo"),
        direction=">=",
        threshold=1.0,
    ),
    Goal(
        key="workers-latency-p99-centrifugo",
        text="Latency, 99th percentile, at half the rate that saturates Centrifugo, with two workers",
        scenario="latency",
        metric="p99_us",
        variant={"load": "half"},
        over=Side(peer=WITH_WORKERS),
        under=Side(peer="centrifugo"),
        threshold=1.0,
    ),
    Goal(
        key="workers-api-rate-centrifugo",
        text="Publish requests per second of the HTTP API, with two workers",
        scenario="api",
        metric="per_second",
        variant={"batch": 1},
        over=Side(peer=WITH_WORKERS),
        under=Side(peer="centrifugo"),
        direction=">=",
        threshold=1.0,
    ),
    Goal(
        key="workers-connect-rate-centrifugo",
        text="Connections per second: connect, verify the JWT, subscribe, with two workers",
        scenario="connect",
        metric="per_second",
        variant={"kind": "steady"},
        over=Side(peer=WITH_WORKERS),
        under=Side(peer="centrifugo"),
        direction=">=",
        threshold=1.0,
    ),
)

_GROWTH = (
    Goal(
        key="growth-subscribers",
        text="CPU per delivery with 15,000 subscribers compared with 100",
        scenario="growth_subscribers",
        metric="cpu_us",
        over=Side(variant={"subscribers": 15000}),
        under=Side(variant={"subscribers": 100}),
        threshold=1.15,
    ),
    Goal(
        key="growth-channels",
        text="CPU per publish with 100,000 channels compared with 10",
        scenario="growth_channels",
        metric="cpu_us",
        over=Side(variant={"channels": 100000}),
        under=Side(variant={"channels": 10}),
        threshold=1.1,
    ),
    Goal(
        key="stall",
        text="Longest stall of the event loop during fan-out to 15,000",
        scenario="stall",
        metric="max_us",
        variant={"subscribers": 15000},
        threshold=10_000,
        unit="us",
    ),
)

_TENFOLD: tuple[tuple[str, str, str, str, dict[str, Value]], ...] = (
    ("fanout-cpu", "CPU per delivery, one message in flight", "fanout", "cpu_us", _ONE_IN_FLIGHT),
    ("fanout-rate", "Deliveries per second, 64 messages in flight", "fanout", "per_second", _MANY_IN_FLIGHT),
    ("rooms-rate", "Messages per second, 1,000 rooms of 10", "rooms", "per_second", {}),
    ("one-to-one-rate", "Messages per second, one to one", "one_to_one", "per_second", {}),
    ("connect-cpu", "CPU per connection", "connect", "cpu_us", {"kind": "steady"}),
    ("memory-bytes", "Memory per connection", "memory", "bytes", {}),
)


def _tenfold(peer: str) -> tuple[Goal, ...]:
    """Ten times better than a Python library: its cost divided by ours, or our rate divided by its rate."""
    theirs, ours = Side(peer=peer), Side()
    return tuple(
        Goal(
            key=f"{key}-{peer}",
            text=f"{text}: how many times better",
            scenario=scenario,
            metric=metric,
            variant=variant,
            over=ours if metric == "per_second" else theirs,
            under=theirs if metric == "per_second" else ours,
            direction=">=",
            threshold=10,
        )
        for key, text, scenario, metric, variant in _TENFOLD
    )


GOALS: tuple[Goal, ...] = (*_HEADLINES, *_WORKERS, *_GROWTH, *_tenfold("python-socketio"), *_tenfold("channels"))
"""All goals, in the order of the report; a key names a goal in `explanations.md`."""
