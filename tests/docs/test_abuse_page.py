"""The page about abuse: each limit and metric in its table exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from beaconfire.config import TABLE
from beaconfire.observe.metric_table import LIMITS, METRICS

PAGE = (Path(__file__).parents[2] / "docs" / "operations" / "abuse.md").read_text("utf-8")
FIXED = {"log_lines_lost", *(limit for limit in LIMITS if "." not in limit)}
"""Limits that are constants, not settings."""


def rows() -> list[tuple[str, ...]]:
    """The cells of each row: bytes, bound, limit, metric, outcome."""
    section = PAGE.partition("## What the server may send and hold")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[1:]]


def test_the_table_has_rows() -> None:
    """The table is found; otherwise the tests below would check nothing."""
    assert len(rows()) > 25


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_limit_and_metric_of_every_row_exist(row: tuple[str, ...]) -> None:
    """Each row has a bound, a setting or a fixed limit, and a metric."""
    assert len(row) == 5
    _, bound, limit, metric, _ = row
    assert bound
    [name] = re.findall(r"^`([\w.]+)`", limit)
    assert name in FIXED or TABLE.find(name) is not None
    [shown] = re.findall(r"^`(\w+)`$", metric)
    assert shown in {known.name for known in METRICS}
