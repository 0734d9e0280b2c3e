"""A plan that exceeds a limit of the machine is refused before the load test starts, with a remedy."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from beaconfire.loadtest import limits
from beaconfire.loadtest.plan import Plan


def test_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The soft limit is raised to the number that is needed, at most to the hard limit. If more is needed, the error
    names the necessary number of processes."""
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 20_000))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: set_to.append(both))
    limits.check_limits(Plan(url="ws://h/", connections=100))
    assert set_to == []
    limits.check_limits(Plan(url="ws://h/", connections=10_000))
    assert set_to == [(10_064, 20_000)]
    with pytest.raises(
        ValueError, match=r"may open 20000 files on this machine.*--processes 2 or more.*ulimit -Hn 25064"
    ):
        limits.check_limits(Plan(url="ws://h/", connections=25_000))
    limits.check_limits(Plan(url="ws://h/", connections=25_000, workers=2))


def test_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More connections than ports to one address are refused. If the range is unknown, nothing is refused."""
    file = tmp_path / "range"
    monkeypatch.setattr(limits, "_PORT_RANGE", file)
    limits.check_limits(Plan(url="ws://h/", connections=100))
    file.write_text("1000\t1099\n")
    limits.check_limits(Plan(url="ws://h/", connections=100))
    with pytest.raises(ValueError, match=r"100 ports.*ip_local_port_range"):
        limits.check_limits(Plan(url="ws://h/", connections=101))
