"""Runs of the simulation, one for each seed."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from tests.simulation.broken_guarantee import BrokenGuarantee
from tests.simulation.simulation import Simulation

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "4000"))
FIRST_SEED = int(os.environ.get("SIMULATION_FIRST_SEED", "0"))
STEPS = 340


def simulate(seed: int, loses_announcements: bool | None = None) -> Simulation:
    """Runs one simulation to its end. A failure names its seed. The seed decides about None."""

    async def run() -> Simulation:
        simulation = Simulation(seed, loses_announcements=loses_announcements)
        async with ended_tasks():
            await simulation.run(STEPS)
        return simulation

    try:
        return asyncio.run(run())
    except BrokenGuarantee as failure:
        raise BrokenGuarantee(f"seed {seed}: {failure}") from failure
    except Exception as failure:
        failure.add_note(f"seed {seed}")
        raise


@contextlib.asynccontextmanager
async def ended_tasks() -> AsyncIterator[None]:
    """Ends all tasks that a run with a failure leaves behind, and those that they start when they are cancelled."""
    try:
        yield
    finally:
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=5)
