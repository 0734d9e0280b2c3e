"""The status that the supervisor writes, and the readiness of the whole server."""

from __future__ import annotations

from pathlib import Path

import pytest

from beaconfire.observe.health import HealthReport
from beaconfire.server.workers.figures import combine
from beaconfire.server.workers.seat import Seat
from beaconfire.server.workers.status import (
    CRASH_LOOP,
    ProcessStatus,
    SlotStatus,
    Status,
    read_status,
    write_status,
)

OK = HealthReport("ok", {"engine": "ok"})
STATUS = Status((ProcessStatus("hub", 7, "ready"),), (SlotStatus("hub"), SlotStatus("0", 2, 1, "exit code 1")))


def test_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Nothing else stays in the folder."""
    file = tmp_path / "status.json"
    write_status(file, Status())
    write_status(file, STATUS)
    assert read_status(file) == STATUS
    assert list(tmp_path.iterdir()) == [file]


def test_without_a_file_the_status_is_empty(tmp_path: Path) -> None:
    """The supervisor starts or ends at this moment."""
    assert read_status(tmp_path / "status.json") == Status()


def test_a_process_that_ends_again_and_again_is_a_problem() -> None:
    """A single end is none: the successor serves already."""
    assert STATUS.problem() is None
    looping = Status(slots=(SlotStatus("1", CRASH_LOOP, CRASH_LOOP, "exit code 2"),))
    assert looping.problem() == "1 has ended 3 times soon after its start: exit code 2"


@pytest.mark.parametrize("phase", ["starting", "draining"])
def test_the_phase_of_the_process_that_is_asked_is_the_phase_of_the_whole(phase: str) -> None:
    """All others soon do the same."""
    own = HealthReport(phase, {"engine": "ok"})  # type: ignore[arg-type]
    assert combine({"0": own, "1": OK}, Status(), "0").status == phase


def test_readiness_names_the_processes_in_which_a_check_fails() -> None:
    """Checks that pass everywhere are `ok`."""
    down = HealthReport("failing", {"engine": "no link", "revocations": "ok"})
    report = combine({"0": OK, "1": down, "hub": HealthReport("failing", {"engine": "disk full"})}, Status(), "0")
    assert report == HealthReport(
        "failing", {"engine": "1: no link; hub: disk full", "revocations": "ok", "workers": "ok"}
    )


def test_all_processes_ready_is_ready() -> None:
    """The check `workers` is there, too."""
    assert combine({"0": OK, "hub": OK}, STATUS, "0") == HealthReport("ok", {"engine": "ok", "workers": "ok"})


def test_a_seat_survives_the_command_line() -> None:
    """All fields, those of the hub as well."""
    for seat in (Seat("hub", None, 2, "/run/b", 5), Seat("1", 1, 2, "/run/b", 5, ((3, 4), (6, 7)))):
        assert Seat.decode(seat.encode()) == seat
