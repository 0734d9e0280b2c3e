"""A mirror under the suite of engines: it behaves as its old engine, also while the new one answers reads."""

from __future__ import annotations

import tempfile

from beaconfire.engines.guard import guard_engine
from beaconfire.engines.memory import memory_engine
from beaconfire.engines.mirror import mirror_engine
from beaconfire.engines.port import Engine
from beaconfire.testing import control_calls
from tests.fakes.events import EventRecorder

from .harness import ENGINES, TIMEOUT_S, Harness, sqlite_on_file


class MirrorHarness(Harness):
    """A migration from the memory engine to the SQLite engine, which answers every read that it can."""

    can_fail = True

    def prepare(self) -> None:
        self.folder = tempfile.TemporaryDirectory()

    def make_engine(self) -> Engine:
        new = sqlite_on_file(self.folder.name, self.clock)
        events = EventRecorder()  # of its own, because the tests expect the events of the guard alone
        mirror = mirror_engine(memory_engine(self.clock), new, self.clock.unix_s, events, read_percent=100.0)
        return guard_engine(control_calls(mirror, self.calls), TIMEOUT_S, self.timers, self.events)

    async def close(self) -> None:
        await super().close()
        self.folder.cleanup()


ALL_ENGINES: dict[str, type[Harness]] = {**ENGINES, "mirror": MirrorHarness}
