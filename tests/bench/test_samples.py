"""Samples: their file, how they are compared, and which of them say little because the load side was the bottleneck."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.samples import Sample, Value, append, group, median, ratio, ratios, read, select, spread


def sample(
    peer: str = "beaconfire", round: int = 0, scenario: str = "fanout", /, **metrics_or_variant: Value | float
) -> Sample:
    """Names with a unit at their end are metrics, the others belong to the variant."""
    units = ("_us", "per_second", "bytes", "_busy")
    metrics = {name: float(value) for name, value in metrics_or_variant.items() if name.endswith(units)}
    variant = {name: value for name, value in metrics_or_variant.items() if not name.endswith(units)}
    return Sample(scenario=scenario, peer=peer, variant=variant, round=round, metrics=metrics)


# --- the file -------------------------------------------------------------------------------------------------------


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    """Samples come back as they were, in their order, from a file whose folder was not there."""
    path = tmp_path / "new" / "samples.jsonl"
    first, second, third = sample(cpu_us=7.1, subscribers=1000), sample("c-loop", cpu_us=6.0), sample("x", cpu_us=1)
    append(path, first)
    append(path, second, third)
    assert read(path) == [first, second, third]
    assert len(path.read_text().splitlines()) == 3


def test_a_sample_made_again_replaces_the_first(tmp_path: Path) -> None:
    """Of the same measurement in the same round the last counts; another round or variant is another sample."""
    path = tmp_path / "samples.jsonl"
    kept = [sample(round, n, cpu_us=1) for round, n in (("beaconfire", 1), ("centrifugo", 0))]
    append(path, sample(cpu_us=9), *kept, sample(cpu_us=5))
    assert read(path) == [sample(cpu_us=5), *kept]


@pytest.mark.parametrize("line", ['{"scenario": "fan', '{"scenario": "fanout"}', "[]", '{"peer": 1}'])
def test_what_is_no_sample_is_named(tmp_path: Path, line: str) -> None:
    """A line that is no sample is refused by file and number; empty lines are none."""
    path = tmp_path / "samples.jsonl"
    append(path, sample(cpu_us=1))
    path.write_text(path.read_text() + "\n" + line)
    with pytest.raises(ValueError, match=r"samples\.jsonl, line 3 is no sample"):
        read(path)


# --- one sample -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load_busy", "server_busy", "bound"),
    [(0.95, 0.5, True), (0.9, 0.89, True), (0.95, 0.95, False), (0.95, 1.9, False), (0.5, 0.5, False)],
)
def test_load_bound(load_busy: float, server_busy: float, bound: bool) -> None:
    """The load side was the bottleneck if it was busy and the server was not."""
    assert sample(load_busy=load_busy, server_busy=server_busy).load_bound is bound


def test_text_protocols_compete_with_json() -> None:
    """A peer's own text protocol happens under the same circumstances as JSON; Protobuf does not."""
    json, text, none, protobuf = (
        sample(subscribers=10, **codec) for codec in ({"codec": "json"}, {"codec": "text"}, {}, {"codec": "protobuf"})
    )
    assert json.circumstances == text.circumstances == none.circumstances == (("subscribers", 10),)
    assert protobuf.circumstances == (("codec", "protobuf"), ("subscribers", 10))


# --- statistics -----------------------------------------------------------------------------------------------------


def test_ratios_are_paired_by_round() -> None:
    """Each round has its own ratio: a machine that slows down between rounds changes nothing."""
    ours = [sample("beaconfire", n, cpu_us=value) for n, value in enumerate((2.0, 20.0, 200.0))]
    theirs = [sample("c-loop", n, cpu_us=value) for n, value in enumerate((1.0, 10.0, 50.0))]
    assert ratio([*ours, *theirs], "beaconfire", "c-loop", "cpu_us") == 2.0
    assert ratio([*theirs, *ours], "c-loop", "beaconfire", "cpu_us") == 0.5


def test_rounds_that_lack_either_are_left_out() -> None:
    """A round with one peer only, without the metric, or with nothing to divide by has no ratio."""
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
    assert ratio(samples, "a", "nobody", "cpu_us") is None


def test_only_equal_circumstances_are_compared() -> None:
    """Another variant or scenario is not compared, unless the variant may differ in just that."""
    few, many = sample("a", subscribers=100, codec="json", cpu_us=2), sample("a", subscribers=9000, cpu_us=3)
    assert ratios([many], [few], "cpu_us") == []
    assert ratios([many], [few], "cpu_us", ["subscribers"]) == [1.5]
    assert ratios([sample("a", 0, "rooms", cpu_us=1)], [sample("b", 0, "fanout", cpu_us=1)], "cpu_us") == []


def test_select_takes_what_contains_the_variant() -> None:
    """A variant asked for is the least that must be there."""
    wanted, other = sample("a", 0, subscribers=10, codec="json"), sample("a", 0, subscribers=20, codec="json")
    assert select([wanted, other], "fanout", "a", {"subscribers": 10}) == [wanted]
    assert select([wanted, other], "fanout", "a", {"absent": 1}) == []
    assert select([wanted, other]) == [wanted, other]


def test_groups_hold_the_rounds_of_a_measurement() -> None:
    """The order in which a variant was written does not matter."""
    first, second = sample("a", 0, x=1, y=2), sample("a", 1, y=2, x=1)
    other = sample("b", 0, x=1, y=2)
    assert group([first, other, second]) == {
        ("fanout", "a", (("x", 1), ("y", 2))): [first, second],
        ("fanout", "b", (("x", 1), ("y", 2))): [other],
    }


def test_spread() -> None:
    """Extremes, quartiles and the median; a single value is all of them, and no value has none."""
    found = spread([sample("a", n, cpu_us=value) for n, value in enumerate((5, 1, 3, 2, 4))], "cpu_us")
    assert found is not None
    assert (found.count, found.least, found.low, found.median, found.high, found.greatest) == (5, 1, 2, 3, 4, 5)
    single = spread([sample(cpu_us=7)], "cpu_us")
    assert single is not None
    assert (single.least, single.low, single.median, single.high, single.greatest) == (7, 7, 7, 7, 7)
    assert spread([sample(cpu_us=7)], "bytes") is None
    assert median([], "cpu_us") is None
