"""Durations and sizes with units."""

from __future__ import annotations

import pytest

from beaconfire.base.units import Seconds, Size


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("25s", 25.0),
        ("300ms", 0.3),
        ("1.5s", 1.5),
        ("1h30m", 5400.0),
        ("2d", 172800.0),
        ("1m30s500ms", 90.5),
        (" 25s ", 25.0),
        ("25", 25.0),
        ("0", 0.0),
        (25, 25.0),
        (0.25, 0.25),
    ],
)
def test_durations_are_parsed(written: object, seconds: float) -> None:
    """A duration is a number of seconds, or a series of numbers with units."""
    assert Seconds.parse(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "s",
        "-1s",
        "1x",
        "1 h",
        "1s2",
        "inf",
        "nan",
        "9" * 400 + "s",
        -1,
        -0.5,
        float("nan"),
        float("inf"),
        True,
        None,
    ],
)
def test_invalid_durations_are_refused(written: object) -> None:
    """The error says what is expected: a finite duration of zero or more."""
    with pytest.raises(ValueError, match="expected a duration of zero or more"):
        Seconds.parse(written)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0s"), (0.3, "300ms"), (25, "25s"), (90, "90s"), (120, "2m"), (5400, "90m"), (86400, "1d"), (1.5, "1.5s")],
)
def test_durations_are_shown_in_the_largest_unit_that_fits(seconds: float, written: str) -> None:
    """`str` of a duration is how a person would write the duration."""
    assert str(Seconds(seconds)) == written


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.3, 1 / 3, 25.0, 1234567.0, 1234567.5, 30 * 86400.0, 1e9 + 1])
def test_the_text_of_a_duration_can_be_parsed_again(seconds: float) -> None:
    """Output of `beaconfire config` can be copied into the configuration file."""
    assert Seconds.parse(str(Seconds(seconds))) == pytest.approx(seconds, rel=1e-14)


@pytest.mark.parametrize(
    ("written", "size"),
    [("65536", 65536), ("64KiB", 65536), ("64 kib", 65536), ("1MB", 10**6), ("2GiB", 2**31), ("5b", 5), (7, 7), (0, 0)],
)
def test_sizes_are_parsed(written: object, size: int) -> None:
    """A size is a number of bytes, or a number with a decimal or binary unit."""
    assert Size.parse(written) == size


@pytest.mark.parametrize("written", ["", "KiB", "1.5MB", "-1", "1 TB", "0x10", 1.0, -1, True, None])
def test_invalid_sizes_are_refused(written: object) -> None:
    """The error says what is expected: a whole number of bytes of zero or more."""
    with pytest.raises(ValueError, match="expected a number of bytes of zero or more"):
        Size.parse(written)


@pytest.mark.parametrize(
    ("size", "written"),
    [(0, "0"), (1000, "1000"), (1024, "1KiB"), (3 << 20, "3MiB"), (1 << 30, "1GiB"), (1025, "1025")],
)
def test_sizes_are_shown_in_the_largest_unit_that_fits(size: int, written: str) -> None:
    """The text can be parsed again."""
    assert str(Size(size)) == written
    assert Size.parse(written) == size
