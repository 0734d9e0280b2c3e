"""Runs of the simulation with workers, one for each seed."""

from __future__ import annotations

import os

import pytest

from beaconfire.engines.hub import connection as hub_connection
from beaconfire.engines.wire import frames
from tests.simulation.runs import ended_tasks, run_seed
from tests.simulation.workers.simulation import WorkersSimulation

SEEDS = int(os.environ.get("WORKERS_SIMULATION_SEEDS", "160"))
FIRST_SEED = int(os.environ.get("WORKERS_SIMULATION_FIRST_SEED", "0"))
STEPS = 700


def set_small_limits(patch: pytest.MonkeyPatch) -> None:
    """Limits that a short run reaches."""
    patch.setattr(frames, "OUTPUT_BYTES_MAX", 6000)
    patch.setattr(frames, "_WRITE_BYTES_MIN", 1000)
    patch.setattr(frames, "MESSAGES_PER_TURN", 2)
    patch.setattr(frames, "_MESSAGES_PER_CLOCK", 2)
    patch.setattr(hub_connection, "CALLS_MAX", 4)


def simulate(seed: int) -> WorkersSimulation:
    """Runs one simulation to its end. A failure names its seed."""

    async def run() -> WorkersSimulation:
        simulation = WorkersSimulation(seed)
        async with ended_tasks():
            await simulation.run(STEPS)
        return simulation

    with pytest.MonkeyPatch.context() as patch:
        set_small_limits(patch)
        return run_seed(seed, run())
