"""Random interleavings of a hub and its workers: nothing is lost, doubled or left over, and nothing waits forever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.simulation.runs import find_defect
from tests.simulation.workers.defects import DEFECTS
from tests.simulation.workers.runs import FIRST_SEED, SEEDS, simulate
from tests.simulation.workers.simulation import WorkersSimulation

BLOCKS = 4
SEEDS_MAX = 200


def count(simulation: WorkersSimulation) -> Counter[str]:
    """How often things happened in one run."""
    found: Counter[str] = Counter()
    for client in simulation.clients:
        found.update(vars(client.counts))
    found["cuts"] = simulation.network.cuts
    found["hubs killed"] = simulation.hubs_killed
    found["workers killed"] = simulation.workers_killed
    found["surveys"] = simulation.surveys
    found["acknowledged"] = simulation.backends.acknowledged
    found["repeated"] = simulation.backends.repeated
    return found


EXPECTED = {
    "received": 5.0,
    "recovered": 0.3,
    "unrecovered": 0.2,
    "members_seen": 1.0,
    "answered": 0.5,
    "cuts": 0.5,
    "hubs killed": 0.2,
    "workers killed": 0.2,
    "surveys": 1.0,
    "acknowledged": 5.0,
    "repeated": 0.2,
}
"""The least average of a run. A simulation without events would pass as well."""


@pytest.mark.parametrize("block", range(BLOCKS))
def test_publications_arrive_once_and_in_order(block: int) -> None:
    """In every interleaving, a client gets each publication once and in order, or learns that some are missing.

    If the data of the hub survives, it learns this only when its link was lost while it subscribed. What is published
    again after an unknown outcome is stored once. Presence tells who is subscribed, the workers know each other, and
    each call ends.
    """
    found: Counter[str] = Counter()
    seeds = range(FIRST_SEED + block, FIRST_SEED + SEEDS, BLOCKS)
    for seed in seeds:
        found.update(count(simulate(seed)))
    if len(seeds) >= 40:  # fewer runs may differ much from the average
        missing = {name: found[name] for name, least in EXPECTED.items() if found[name] < least * len(seeds)}
        assert missing == {}


def test_a_seed_determines_its_run() -> None:
    """So the seed of a failure is all that is needed to find its cause."""
    for seed in range(4):
        assert simulate(seed).recorder.events == simulate(seed).recorder.events


@pytest.mark.parametrize("plant", DEFECTS, ids=lambda function: function.__name__.strip("_"))
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine")
def test_every_planted_defect_is_found(plant: Callable[[pytest.MonkeyPatch], None]) -> None:
    """At most 200 simulations are necessary to find each defect. For most defects ten are enough."""
    find_defect(plant, simulate, SEEDS_MAX)
