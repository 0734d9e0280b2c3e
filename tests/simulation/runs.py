"""Runs of the simulation, one for each seed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from tests.simulation.broken_guarantee import BrokenGuarantee
from tests.simulation.simulation import Simulation

T = TypeVar("T")

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

    return run_seed(seed, run())


def run_seed(seed: int, run: Coroutine[Any, Any, T]) -> T:
    """Runs in a new event loop. A failure names the seed."""
    try:
        return asyncio.run(run)
    except BrokenGuarantee as failure:
        raise BrokenGuarantee(f"seed {seed}: {failure}") from failure
    except Exception as failure:
        failure.add_note(f"seed {seed}")
        raise


def find_defect(
    plant: Callable[[pytest.MonkeyPatch], None], simulate_seed: Callable[[int], object], seeds_max: int
) -> None:
    """Plants a defect, and fails unless one of the first `seeds_max` simulations finds it. The caller must ignore the
    warnings of coroutines that a failed run leaves behind."""
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        for seed in range(seeds_max):
            try:
                simulate_seed(seed)
            except AssertionError:
                gc.collect()  # here, where the warnings of unfinished coroutines are ignored
                return
    raise AssertionError(f"{seeds_max} simulations did not find the defect: {plant.__doc__}")


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
