"""The page about abuse: each way to make the server send or hold bytes has a bound that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from beaconfire.config import TABLE
from beaconfire.observe.metric_table import LIMITS, METRICS

PAGE = (Path(__file__).parents[2] / "docs" / "operations" / "abuse.md").read_text("utf-8")
FIXED = {"log_lines_lost", *(limit for limit in LIMITS if "." not in limit)}
"""What is bounded by a constant, and not by a setting."""


def rows() -> list[tuple[str, ...]]:
    """The cells of each row: bytes, bound, limit, metric, outcome."""
    section = PAGE.partition("## What the server may send and hold")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[1:]]


def test_there_are_rows() -> None:
    """Or the tests below would prove nothing."""
    assert len(rows()) > 25


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_every_row_has_a_bound_that_exists(row: tuple[str, ...]) -> None:
    """A bound in words, a setting or a fixed limit that is counted, and a metric that is there."""
    assert len(row) == 5
    _, bound, limit, metric, _ = row
    assert bound
    [name] = re.findall(r"^`([\w.]+)`", limit)
    assert name in FIXED or TABLE.find(name) is not None
    [shown] = re.findall(r"^`(\w+)`$", metric)
    assert shown in {known.name for known in METRICS}
