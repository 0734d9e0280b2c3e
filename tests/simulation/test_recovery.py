"""Gapless recovery in thousands of random interleavings, and proof that the simulation finds planted defects."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable

import pytest

from beaconfire.model.events import ChannelHealed
from tests.simulation import delivery_defects, engine_defects, recovery_defects
from tests.simulation.broken_guarantee import BrokenGuarantee
from tests.simulation.disabled_checks import accept_missing_offsets
from tests.simulation.simulation import Simulation

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "4000"))
FIRST_SEED = int(os.environ.get("SIMULATION_FIRST_SEED", "0"))
STEPS = 320
BLOCKS = 10


def simulate(seed: int, loses_announcements: bool | None = None) -> Simulation:
    """Runs one simulation to its end. A failure names its seed. The seed decides about None."""

    async def run() -> Simulation:
        simulation = Simulation(seed, loses_announcements=loses_announcements)
        await simulation.run(STEPS)
        return simulation

    try:
        return asyncio.run(run())
    except BrokenGuarantee as failure:
        raise BrokenGuarantee(f"seed {seed}: {failure}") from failure


@pytest.mark.parametrize("block", range(BLOCKS))
def test_publications_arrive_once_and_in_order(block: int) -> None:
    """In every interleaving, a client gets each publication once and in order, or learns that some are missing."""
    bridged = told = quiet = members = 0
    received = recovered = unrecovered = patched = filtered = conflated = in_pieces = interrupted = 0
    for seed in range(FIRST_SEED + block, FIRST_SEED + SEEDS, BLOCKS):
        simulation = simulate(seed)
        received += sum(client.received for client in simulation.clients)
        recovered += sum(client.recovered for client in simulation.clients)
        unrecovered += sum(client.unrecovered for client in simulation.clients)
        patched += sum(client.patched for client in simulation.clients)
        filtered += sum(client.filtered for client in simulation.clients)
        conflated += sum(client.conflated for client in simulation.clients)
        in_pieces += simulation.recorder.limits().count("client.reply_max_size")
        interrupted += simulation.interrupted
        healed = [event.bridged for event in simulation.recorder.of(ChannelHealed)]
        bridged += healed.count(True)
        told += healed.count(False)
        quiet += simulation.quiet_moments
        members += sum(client.members_seen for client in simulation.clients)
    # A simulation without events would pass as well.
    assert received + filtered + conflated > SEEDS / BLOCKS * 20
    assert recovered > SEEDS / BLOCKS * 0.6
    assert unrecovered > 0
    assert patched > SEEDS / BLOCKS
    assert filtered > SEEDS / BLOCKS * 2
    assert conflated > SEEDS / BLOCKS * 2
    assert in_pieces > SEEDS / BLOCKS * 0.1
    assert interrupted > SEEDS / BLOCKS * 5
    assert bridged > SEEDS / BLOCKS * 0.1
    assert told > SEEDS / BLOCKS * 0.1
    assert quiet > SEEDS / BLOCKS
    assert members > SEEDS / BLOCKS * 4


@pytest.mark.parametrize(
    "plant",
    [*recovery_defects.DEFECTS, *delivery_defects.DEFECTS, *engine_defects.DEFECTS],
    ids=lambda function: function.__name__.strip("_"),
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine")
def test_every_planted_defect_is_found(plant: Callable[[pytest.MonkeyPatch], None]) -> None:
    """At most 1,500 simulations are necessary to find each defect. For most defects ten are enough."""
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        for seed in range(1500):
            try:
                simulate(seed)
            except AssertionError:
                gc.collect()  # here, where the warnings of unfinished coroutines are ignored
                return
    raise AssertionError(f"1,500 simulations did not find the defect: {plant.__doc__}")


def test_disabled_checks_of_offsets_are_no_defect() -> None:
    """Some planted defects disable them. The simulation then finds the defect itself.

    A link that is lost while a subscription is made is the exception: only these checks find the gap.
    """
    with pytest.MonkeyPatch.context() as patch:
        accept_missing_offsets(patch)
        for seed in range(400):
            simulate(seed, loses_announcements=False)
