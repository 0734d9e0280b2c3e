"""What operators see and do during a migration, through every way to an engine."""

from __future__ import annotations

import asyncio

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import NOT_AVAILABLE, CommandError
from beaconfire.engines.memory import memory_engine

from .harness import Harness, Run


def test_calls_reach_the_migration(run_failing: Run) -> None:
    """Each returns the status after it, with the result of a verification."""

    async def scenario(h: Harness) -> None:
        migration = h.engine.migration
        first = await migration.status()
        assert first.new == "sqlite"
        assert (await migration.set_read_percent(12.5)).read_percent == 12.5
        started = await migration.verify()
        assert started.verification == first.verification + 1
        while (status := await migration.status()).verified is None:  # noqa: ASYNC110 - the status is all there is
            await asyncio.sleep(0)
        assert status.verified.different == 0
        assert status.verified.old == status.verified.new
        assert (await migration.set_read_percent(0.0)).read_percent == 0.0

    run_failing(scenario)


def test_an_engine_without_a_migration_refuses_each_call() -> None:
    """With an error that clients of the API understand."""

    async def run() -> None:
        migration = memory_engine(ManualClock()).migration
        for call in (migration.status(), migration.set_read_percent(1.0), migration.verify()):
            with pytest.raises(CommandError) as caught:
                await call
            assert caught.value.code == NOT_AVAILABLE

    asyncio.run(run())
