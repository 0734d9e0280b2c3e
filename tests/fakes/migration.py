"""A migration for tests: the status is a field, and calls are recorded."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from beaconfire.base.errors import EngineUnavailable
from beaconfire.engines.migration import MigrationStatus, StreamTotals, Verification
from beaconfire.engines.port import Engine

TOTALS = StreamTotals(3, 9, "5f0c")
VERIFIED = Verification(1, TOTALS, TOTALS, 0, [])


class FakeMigration:
    """Implements `Migration`. `check` runs before each call, and may raise."""

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self.current = MigrationStatus("memory", "sqlite", "following", 3, 3, 0, 0.0, "", 1, VERIFIED)

    async def status(self) -> MigrationStatus:
        self._check()
        return self.current

    async def set_read_percent(self, percent: float) -> MigrationStatus:
        self._check()
        self.current = replace(self.current, read_percent=percent)
        return self.current

    async def verify(self) -> MigrationStatus:
        self._check()
        self.current = replace(self.current, phase="verifying", verification=self.current.verification + 1)
        return self.current


def with_migration(engine: Engine) -> Engine:
    """The same engine, which says that there is a migration. Its calls fail while the engine is down."""

    def check() -> None:
        state = engine.state()
        if not state.up:
            raise EngineUnavailable(state.detail)

    return replace(engine, migration=FakeMigration(check))
