"""The SQLite engine keeps its promises when the process ends at any step, and when the disk fails or is full."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation.runs import FIRST_SEED, SEEDS
from tests.simulation.storage.defects import DEFECTS
from tests.simulation.storage.world import simulate

PARTS = 4
SEEDS_MAX = 1000


@pytest.mark.parametrize("part", range(PARTS))
def test_what_is_acknowledged_is_kept_and_nothing_is_doubled(part: int) -> None:
    """Half of `SIMULATION_SEEDS` is the number of runs. A failure names its seed."""
    for seed in range(FIRST_SEED + part, FIRST_SEED + SEEDS // 2, PARTS):
        simulate(seed)


@pytest.mark.parametrize("plant", DEFECTS, ids=lambda function: function.__name__.strip("_"))
def test_every_planted_defect_is_found(plant: Callable[[pytest.MonkeyPatch], None]) -> None:
    """At most 1,000 simulations are necessary to find each defect."""
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        for seed in range(SEEDS_MAX):
            try:
                simulate(seed)
            except Exception:  # noqa: BLE001 - a defect may also make the engine or the simulation fail
                return
    raise AssertionError(f"{SEEDS_MAX} simulations did not find the defect: {plant.__doc__}")
