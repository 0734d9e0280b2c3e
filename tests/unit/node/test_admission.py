"""Whether one more connection may come in."""

from __future__ import annotations

import resource
from typing import Any

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.node import admission
from beaconfire.node.admission import Admission
from beaconfire.session.options import ClientOptions
from tests.unit.kit import Recorder


class Door:
    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.recorder = Recorder()
        self.connections = 0
        self.admission = Admission(ClientOptions(**options), lambda: self.connections, self.clock, self.recorder)

    def reason(self) -> str | None:
        """Why one more is refused with a 503; None if it is not."""
        refusal = self.admission.admit()
        if refusal is None:
            return None
        assert refusal.status == 503
        return refusal.reason


def test_the_limit_of_connections_is_exact() -> None:
    """As many as configured are let in, and not one more."""
    door = Door(connection_limit=2)
    assert door.reason() is None
    door.connections = 1
    assert door.reason() is None
    door.connections = 2
    assert door.reason() == "limit"
    assert door.recorder.limits() == ["client.connection_limit"]
    door.connections = 1
    assert door.reason() is None


@pytest.mark.parametrize(("open_files", "expected"), [(1000, 900), (resource.RLIM_INFINITY, 943_718)])
def test_without_a_limit_open_files_are_it(monkeypatch: pytest.MonkeyPatch, open_files: int, expected: int) -> None:
    """A tenth is left for HTTP and ourselves; a system that sets no limit does not mean zero."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (open_files, open_files))
    assert Door().admission.connection_limit == expected
    assert Door().reason() is None
    assert Door(connection_limit=5).admission.connection_limit == 5


def test_the_rate_is_counted_per_second() -> None:
    """So many in one second; in the next they are let in again. Refused ones do not count."""
    door = Door(connection_rate_limit=2)
    assert [door.reason() for _ in range(4)] == [None, None, "rate", "rate"]
    door.clock.advance(0.9)
    assert door.reason() == "rate"
    door.clock.advance(0.1)
    assert [door.reason() for _ in range(3)] == [None, None, "rate"]
    assert door.recorder.limits() == ["client.connection_rate_limit"] * 4


def test_the_full_do_not_use_up_the_rate() -> None:
    """Who is refused for want of room has not come in."""
    door = Door(connection_limit=1, connection_rate_limit=1)
    door.connections = 1
    assert door.reason() == "limit"
    door.connections = 0
    assert door.reason() is None
    assert door.reason() == "rate"


def test_without_a_rate_limit_anyone_may_come() -> None:
    """A thundering herd included."""
    door = Door()
    assert {door.reason() for _ in range(10_000)} == {None}


def test_a_draining_node_takes_nobody() -> None:
    """Whatever room there is."""
    door = Door()
    door.admission.draining = True
    assert door.reason() == "draining"
    assert door.recorder.limits() == []


@pytest.mark.parametrize(("soft", "hard", "raised"), [(1024, 4096, [4096]), (4096, 4096, [])])
def test_the_soft_limit_is_raised_to_the_hard_one(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: list[int]
) -> None:
    """A connection costs a descriptor, and the soft limit is often a thousand."""
    seen: list[int] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: seen.append(limits[0]))
    admission.raise_open_files_limit()
    assert seen == raised
