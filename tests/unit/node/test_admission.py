"""Limits of new connections."""

from __future__ import annotations

import resource
from typing import Any

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.node import admission
from beaconfire.node.admission import Admission
from beaconfire.session.options import ClientOptions
from tests.fakes.events import EventRecorder


class AdmissionHarness:
    def __init__(self, share: int = 1, **options: Any) -> None:
        self.clock = ManualClock()
        self.recorder = EventRecorder()
        self.connections = 0
        self.admission = Admission(ClientOptions(**options), lambda: self.connections, self.clock, self.recorder, share)

    def admit(self) -> str | None:
        """Asks for one more connection. Returns the reason of the refusal with 503, None if it is admitted."""
        refusal = self.admission.admit()
        if refusal is None:
            return None
        assert refusal.status == 503
        return refusal.reason


def test_connection_limit_is_exact() -> None:
    """As many connections as configured are admitted, and not one more."""
    harness = AdmissionHarness(connection_limit=2)
    assert harness.admit() is None
    harness.connections = 1
    assert harness.admit() is None
    harness.connections = 2
    assert harness.admit() == "limit"
    assert harness.recorder.limits() == ["client.connection_limit"]
    harness.connections = 1
    assert harness.admit() is None


@pytest.mark.parametrize(("open_files", "expected"), [(1000, 900), (resource.RLIM_INFINITY, 943_718)])
def test_default_connection_limit_is_90_percent_of_open_files(
    monkeypatch: pytest.MonkeyPatch, open_files: int, expected: int
) -> None:
    """The rest is for HTTP requests and the server itself. A system without a limit is not a limit of zero."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (open_files, open_files))
    assert AdmissionHarness().admission.connection_limit == expected
    assert AdmissionHarness().admit() is None
    assert AdmissionHarness(connection_limit=5).admission.connection_limit == 5


def test_connection_rate_is_counted_per_second() -> None:
    """The next second has its own count. Refused connections do not count."""
    harness = AdmissionHarness(connection_rate_limit=2)
    assert [harness.admit() for _ in range(4)] == [None, None, "rate", "rate"]
    harness.clock.advance(0.9)
    assert harness.admit() == "rate"
    harness.clock.advance(0.1)
    assert [harness.admit() for _ in range(3)] == [None, None, "rate"]
    assert harness.recorder.limits() == ["client.connection_rate_limit"] * 4


def test_connections_refused_by_the_limit_do_not_count_against_the_rate() -> None:
    """Only admitted connections count."""
    harness = AdmissionHarness(connection_limit=1, connection_rate_limit=1)
    harness.connections = 1
    assert harness.admit() == "limit"
    harness.connections = 0
    assert harness.admit() is None
    assert harness.admit() == "rate"


def test_without_a_rate_limit_any_number_is_admitted() -> None:
    """All clients may reconnect at once."""
    harness = AdmissionHarness()
    assert {harness.admit() for _ in range(10_000)} == {None}


def test_draining_node_admits_no_connection() -> None:
    """The node may be below its limits."""
    harness = AdmissionHarness()
    harness.admission.draining = True
    assert harness.admit() == "draining"
    assert harness.recorder.limits() == []


@pytest.mark.parametrize(("soft", "hard", "raised"), [(1024, 4096, [4096]), (4096, 4096, [])])
def test_soft_limit_of_open_files_is_raised_to_the_hard_one(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: list[int]
) -> None:
    """A connection needs a file descriptor, and the soft limit is often a thousand."""
    seen: list[int] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: seen.append(limits[0]))
    admission.raise_open_files_limit()
    assert seen == raised


@pytest.mark.parametrize(("limit", "share", "part"), [(10, 1, 10), (10, 4, 3), (8, 4, 2), (1, 4, 1)])
def test_each_process_takes_an_equal_part_of_the_limits_rounded_up(limit: int, share: int, part: int) -> None:
    """So all processes together admit at least what is configured, and at most one connection more for each process."""
    assert AdmissionHarness(share, connection_limit=limit).admission.connection_limit == part
    rated = AdmissionHarness(share, connection_rate_limit=limit)
    assert [rated.admit() for _ in range(part + 1)] == [None] * part + ["rate"]


def test_open_file_limit_is_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process has a limit of its own. No configured rate stays no limit."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1000, 1000))
    harness = AdmissionHarness(4)
    assert harness.admission.connection_limit == 900
    assert [harness.admit() for _ in range(3)] == [None] * 3
