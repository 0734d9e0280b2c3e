"""Proof that the simulation finds defects: it finds each one that is planted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation import delivery_defects, engine_defects, recovery_defects, session_defects, shared_read_defects
from tests.simulation.disabled_checks import accept_missing_offsets
from tests.simulation.runs import find_defect, simulate

DEFECTS = (
    *recovery_defects.DEFECTS,
    *delivery_defects.DEFECTS,
    *engine_defects.DEFECTS,
    *session_defects.DEFECTS,
    *shared_read_defects.DEFECTS,
)
SEEDS_MAX = 1500


@pytest.mark.parametrize("plant", DEFECTS, ids=lambda function: function.__name__.strip("_"))
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine")
def test_every_planted_defect_is_found(plant: Callable[[pytest.MonkeyPatch], None]) -> None:
    """At most 1,500 simulations are necessary to find each defect. For most defects ten are enough."""
    find_defect(plant, simulate, SEEDS_MAX)


def test_disabled_checks_of_offsets_are_no_defect() -> None:
    """Some planted defects disable them. The simulation then finds the defect itself.

    A link that is lost while a subscription is made is the exception: only these checks find the gap.
    """
    with pytest.MonkeyPatch.context() as patch:
        accept_missing_offsets(patch)
        for seed in range(400):
            simulate(seed, loses_announcements=False)
