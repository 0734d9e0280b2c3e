"""Goals: each is computed from its samples, and is met, missed or not measured."""

from __future__ import annotations

import pytest

from bench.goals import GOALS, Goal, Side, judge
from bench.samples import Sample, Value


def sample(
    peer: str,
    round: int = 0,
    scenario: str = "fanout",
    variant: dict[str, Value] | None = None,
    **metrics: float,
) -> Sample:
    return Sample(scenario=scenario, peer=peer, variant=variant or {}, round=round, metrics=metrics)


def goal(key: str) -> Goal:
    return next(entry for entry in GOALS if entry.key == key)


ONE: dict[str, Value] = {"subscribers": 1000, "in_flight": 1, "codec": "json"}


def test_keys_are_unique() -> None:
    """A key names one goal."""
    assert len({entry.key for entry in GOALS}) == len(GOALS)


def test_every_goal_can_be_met_missed_and_not_measured() -> None:
    """A value equal to the threshold meets the goal, a slightly worse value misses it."""
    for entry in GOALS:

        def judged(value: float, entry: Goal = entry) -> str:
            over = Sample(
                scenario=entry.scenario,
                peer=entry.over.peer,
                variant={**entry.variant, **entry.over.variant},
                round=0,
                metrics={entry.metric: value},
            )
            if entry.under is None:
                return judge(entry, [over]).outcome
            variant = {**entry.variant, **entry.under.variant}
            under = Sample(
                scenario=entry.scenario, peer=entry.under.peer, variant=variant, round=0, metrics={entry.metric: 1.0}
            )
            return judge(entry, [over, under]).outcome

        missing = entry.threshold * (1.01 if entry.direction == "<=" else 0.99)
        assert (judged(entry.threshold), judged(missing)) == ("met", "missed"), entry.key
        assert judge(entry, []).outcome == "not measured"


def test_a_ratio_is_computed_per_round() -> None:
    """The value is the median of the ratios of all rounds that have both sides; their number is reported."""
    samples = [
        sample(peer, round, variant=ONE, cpu_us=cpu_us)
        for round, ours, theirs in ((0, 0.6, 1.0), (1, 6.0, 10.0), (2, 90.0, 30.0), (3, 5.0, None))
        for peer, cpu_us in (("beaconfire", ours), ("centrifugo", theirs))
        if cpu_us is not None
    ]
    verdict = judge(goal("fanout-cpu-centrifugo"), samples)
    assert verdict.value == pytest.approx(0.6)
    assert (verdict.outcome, verdict.rounds) == ("met", 3)


def test_goals_ignore_binary_protocols() -> None:
    """Goals compare JSON and other text protocols, unless they name a codec."""
    texts = [
        sample("beaconfire", variant=ONE, cpu_us=2.0),
        sample("centrifugo", variant={**ONE, "codec": "text"}, cpu_us=2.0),
    ]
    binary = [
        sample("beaconfire", variant={**ONE, "codec": "protobuf"}, cpu_us=9.0),
        sample("centrifugo", variant={**ONE, "codec": "protobuf"}, cpu_us=1.0),
    ]
    assert judge(goal("fanout-cpu-centrifugo"), [*binary, *texts]).value == 1.0
    assert judge(goal("fanout-cpu-centrifugo"), binary).outcome == "not measured"


def test_growth_compares_two_variants_of_the_same_peer() -> None:
    """A growth goal compares two variants of Beaconfire within a round; other peers and sizes are ignored."""
    samples = [
        sample(peer, round, "growth_subscribers", {"subscribers": subscribers}, cpu_us=cpu_us * (round + 1))
        for round in range(3)
        for peer, subscribers, cpu_us in (
            ("beaconfire", 100, 10.0),
            ("beaconfire", 1000, 99.0),
            ("beaconfire", 15000, 11.0),
            ("centrifugo", 100, 1.0),
        )
    ]
    verdict = judge(goal("growth-subscribers"), samples)
    assert verdict.value == pytest.approx(1.1)
    assert (verdict.outcome, verdict.rounds) == ("met", 3)


def test_the_longest_stall_is_the_maximum_of_all_rounds() -> None:
    """One round with a stall that is too long misses the goal, regardless of the median."""
    samples = [
        sample("beaconfire", round, "stall", {"subscribers": 15000}, max_us=max_us)
        for round, max_us in enumerate((4000, 4100, 10_001))
    ]
    verdict = judge(goal("stall"), samples)
    assert (verdict.value, verdict.outcome) == (10_001, "missed")


def test_load_bound_peers_are_named() -> None:
    """A verdict names the peers whose measurement was limited by the load side."""
    samples = [
        sample("beaconfire", variant=ONE, cpu_us=1, load_busy=0.4, server_busy=0.99),
        sample("centrifugo", variant=ONE, cpu_us=1, load_busy=0.99, server_busy=0.4),
    ]
    assert judge(goal("fanout-cpu-centrifugo"), samples).load_bound == ("centrifugo",)


def test_formula_describes_the_computation() -> None:
    """The formula of a goal names both sides, the metric and the conditions."""
    entry = Goal(
        key="x",
        text="x",
        scenario="growth",
        metric="cpu_us",
        variant={"codec": "json"},
        over=Side(variant={"size": 9}),
        under=Side(variant={"size": 1}),
        threshold=1,
    )
    assert entry.formula == "cpu_us: beaconfire (size = 9) / beaconfire (size = 1) · growth, codec = json"
    assert goal("memory-bytes").formula == "median bytes: beaconfire · memory"
    assert goal("stall").formula == "highest max_us: beaconfire · stall, subscribers = 15000"
