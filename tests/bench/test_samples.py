"""Samples: their file, their comparison, and whether the load side was the bottleneck."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.samples import Sample, Value, append, group, median, ratio, ratios, read, select, spread


def sample(
    peer: str = "beaconfire", round: int = 0, scenario: str = "fanout", /, **metrics_or_variant: Value | float
) -> Sample:
    """Names that end with a unit are metrics, the others belong to the variant."""
    units = ("_us", "per_second", "bytes", "_busy")
    metrics = {name: float(value) for name, value in metrics_or_variant.items() if name.endswith(units)}
    variant = {name: value for name, value in metrics_or_variant.items() if not name.endswith(units)}
    return Sample(scenario=scenario, peer=peer, variant=variant, round=round, metrics=metrics)


# --- the file -------------------------------------------------------------------------------------------------------


def test_appended_samples_are_read(tmp_path: Path) -> None:
    """Samples are read unchanged and in order. The folder of the file is created."""
    path = tmp_path / "new" / "samples.jsonl"
    first, second, third = sample(cpu_us=7.1, subscribers=1000), sample("c-loop", cpu_us=6.0), sample("x", cpu_us=1)
    append(path, first)
    append(path, second, third)
    assert read(path) == [first, second, third]
    assert len(path.read_text().splitlines()) == 3


def test_a_repeated_sample_replaces_the_first(tmp_path: Path) -> None:
    """For the same measurement in the same round, the last one counts. Another round or variant is another sample."""
    path = tmp_path / "samples.jsonl"
    kept = [sample(round, n, cpu_us=1) for round, n in (("beaconfire", 1), ("centrifugo", 0))]
    append(path, sample(cpu_us=9), *kept, sample(cpu_us=5))
    assert read(path) == [sample(cpu_us=5), *kept]


@pytest.mark.parametrize("line", ['{"scenario": "fan', '{"scenario": "fanout"}', "[]", '{"peer": 1}'])
def test_an_invalid_line_is_refused(tmp_path: Path, line: str) -> None:
    """The error names file and line. Empty lines are skipped."""
    path = tmp_path / "samples.jsonl"
    append(path, sample(cpu_us=1))
    path.write_text(path.read_text() + "\n" + line)
    with pytest.raises(ValueError, match=r"samples\.jsonl, line 3 is not a sample"):
        read(path)


# --- one sample -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load_busy", "server_busy", "bound"),
    [(0.95, 0.5, True), (0.9, 0.89, True), (0.95, 0.95, False), (0.95, 1.9, False), (0.5, 0.5, False)],
)
def test_load_bound(load_busy: float, server_busy: float, bound: bool) -> None:
    """The load side was the bottleneck if it was busy and the server was not."""
    assert sample(load_busy=load_busy, server_busy=server_busy).load_bound is bound


def test_text_protocols_are_compared_with_json() -> None:
    """A peer's own text protocol has the same conditions as JSON; Protobuf does not."""
    json, text, none, protobuf = (
        sample(subscribers=10, **codec) for codec in ({"codec": "json"}, {"codec": "text"}, {}, {"codec": "protobuf"})
    )
    assert json.conditions == text.conditions == none.conditions == (("subscribers", 10),)
    assert protobuf.conditions == (("codec", "protobuf"), ("subscribers", 10))


# --- statistics -----------------------------------------------------------------------------------------------------


def test_ratios_are_paired_by_round() -> None:
    """Each round has its own ratio, so a machine that slows down between rounds does not change the result."""
    ours = [sample("beaconfire", n, cpu_us=value) for n, value in enumerate((2.0, 20.0, 200.0))]
    theirs = [sample("c-loop", n, cpu_us=value) for n, value in enumerate((1.0, 10.0, 50.0))]
    assert ratio([*ours, *theirs], "beaconfire", "c-loop", "cpu_us") == 2.0
    assert ratio([*theirs, *ours], "c-loop", "beaconfire", "cpu_us") == 0.5


def test_rounds_without_both_sides_are_left_out() -> None:
    """A round with only one peer, without the metric, or with a denominator of 0 has no ratio."""
    samples = [
        sample("a", 0, cpu_us=3),
        sample("b", 0, cpu_us=1),
        sample("a", 1, cpu_us=100),
        sample("b", 2, cpu_us=100),
        sample("a", 3, cpu_us=100),
        sample("b", 3, bytes=1),
        sample("a", 4, cpu_us=100),
        sample("b", 4, cpu_us=0),
    ]
    assert ratios(select(samples, peer="a"), select(samples, peer="b"), "cpu_us") == [3.0]
    assert ratio(samples, "a", "b", "cpu_us") == 3.0
    assert ratio(samples, "a", "unknown", "cpu_us") is None


def test_only_equal_conditions_are_compared() -> None:
    """Samples of different variants or scenarios are not compared, except for variant items that may differ."""
    few, many = sample("a", subscribers=100, codec="json", cpu_us=2), sample("a", subscribers=9000, cpu_us=3)
    assert ratios([many], [few], "cpu_us") == []
    assert ratios([many], [few], "cpu_us", ["subscribers"]) == [1.5]
    assert ratios([sample("a", 0, "rooms", cpu_us=1)], [sample("b", 0, "fanout", cpu_us=1)], "cpu_us") == []


def test_select_matches_variants_that_contain_the_given_items() -> None:
    """A sample may have more items in its variant."""
    wanted, other = sample("a", 0, subscribers=10, codec="json"), sample("a", 0, subscribers=20, codec="json")
    assert select([wanted, other], "fanout", "a", {"subscribers": 10}) == [wanted]
    assert select([wanted, other], "fanout", "a", {"absent": 1}) == []
    assert select([wanted, other]) == [wanted, other]


def test_groups_contain_the_rounds_of_a_measurement() -> None:
    """The order of items in a variant does not matter."""
    first, second = sample("a", 0, x=1, y=2), sample("a", 1, y=2, x=1)
    other = sample("b", 0, x=1, y=2)
    assert group([first, other, second]) == {
        ("fanout", "a", (("x", 1), ("y", 2))): [first, second],
        ("fanout", "b", (("x", 1), ("y", 2))): [other],
    }


def test_spread() -> None:
    """Minimum, quartiles, median and maximum. For a single value all are equal; without values there is no spread."""
    found = spread([sample("a", n, cpu_us=value) for n, value in enumerate((5, 1, 3, 2, 4))], "cpu_us")
    assert found is not None
    assert (found.count, found.minimum, found.low, found.median, found.high, found.maximum) == (5, 1, 2, 3, 4, 5)
    single = spread([sample(cpu_us=7)], "cpu_us")
    assert single is not None
    assert (single.minimum, single.low, single.median, single.high, single.maximum) == (7, 7, 7, 7, 7)
    assert spread([sample(cpu_us=7)], "bytes") is None
    assert median([], "cpu_us") is None
