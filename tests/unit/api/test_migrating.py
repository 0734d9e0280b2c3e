"""The methods about a migration: the status as JSON, the percentage, verification, and a server without a migration."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from beaconfire.base.errors import CommandError
from beaconfire.engines.migration import NO_MIGRATION, Difference, Migration
from tests.fakes.migration import VERIFIED, FakeMigration
from tests.unit.api.harness import ApiHarness


def run(scenario: Callable[[ApiHarness], Awaitable[None]], migration: Migration | None = None) -> None:
    async def play() -> None:
        await scenario(await ApiHarness(migration=migration).start())

    asyncio.run(play())


def test_the_status_lists_the_differences() -> None:
    """Fields with their default value are omitted."""
    migration = FakeMigration()
    found = replace(VERIFIED, different=1, differences=[Difference("chat", "publication 2: data differ")])
    migration.current = replace(migration.current, verified=found, problem="the disk is full")
    totals = {"channels": 3, "publications": 9, "hash": "5f0c"}

    async def scenario(api: ApiHarness) -> None:
        assert await api.call("migration") == {
            **{"old": "memory", "new": "sqlite", "phase": "following", "channels": 3, "total": 3, "waiting": 0},
            **{"read_percent": 0.0, "problem": "the disk is full", "verification": 1},
            "verified": {
                **{"number": 1, "old": totals, "new": totals, "different": 1},
                "differences": [{"channel": "chat", "what": "publication 2: data differ"}],
            },
        }

    run(scenario, migration)


def test_calls_change_the_migration() -> None:
    """Each result is the status after the call. A percentage outside of 0 to 100 changes nothing."""

    async def scenario(api: ApiHarness) -> None:
        assert (await api.call("migration_read", percent=12.5))["read_percent"] == 12.5
        for percent in (-1, 101):
            with pytest.raises(CommandError) as caught:
                await api.call("migration_read", percent=percent)
            assert caught.value.code.code == 107
        result = await api.call("migration_verify")
        assert (result["phase"], result["verification"], result["read_percent"]) == ("verifying", 2, 12.5)

    run(scenario)


@pytest.mark.parametrize("call", [("migration", {}), ("migration_read", {"percent": 0}), ("migration_verify", {})])
def test_without_a_migration_each_method_is_refused(call: tuple[str, dict[str, object]]) -> None:
    """The detail names the setting."""

    async def scenario(api: ApiHarness) -> None:
        with pytest.raises(CommandError) as caught:
            await api.call(call[0], **call[1])
        assert caught.value.code.code == 108
        assert "migration.to" in caught.value.detail

    run(scenario, NO_MIGRATION)
