"""Runs `beaconfire serve` with the SQLite engine, if necessary inside another program or with other variables."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from tests.acceptance.server_process import ServerProcess

CONFIG: Final = """
[client]
insecure = true
recovery_max_publication_limit = 1000000
[api]
keys = ["api_key"]
insecure = true
[engine]
type = "sqlite"
[channel]
durability = "disk"
history_size = 10000000
history_ttl = "1h"
force_recovery = true
[namespaces.memory]
history_size = 1000
history_ttl = "1h"
force_recovery = true
[namespaces.live]
"""
"""Channels of durability `disk` with a history that keeps everything, those of durability `memory` in the namespace
`memory`, and those without history in `live`."""


class DiskServer(ServerProcess):
    """A server whose database is `database`.

    Args:
        folder: where the configuration file is written.
        database: the path as the server sees it.
        launcher: a program with its options that executes the server in its own place.
        environment: variables for the server.
    """

    def __init__(
        self,
        folder: Path,
        database: Path,
        overrides: Mapping[str, str] | None = None,
        *,
        launcher: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, CONFIG, {"engine.path": str(database), **(overrides or {})})
        self.database = database
        self.start_times_s: list[float] = []
        """How long each start took until the server listened."""
        self._launcher = launcher
        self._variables = dict(environment or {})

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def start(self) -> None:
        began_s = time.monotonic()
        super().start()
        self.start_times_s.append(time.monotonic() - began_s)

    def _command(self) -> list[str]:
        return [*self._launcher, *super()._command()]

    def _environment(self) -> dict[str, str]:
        return self._variables


def assert_intact(database: Path) -> None:
    """Fails if SQLite finds a damaged page, a missing row of an index, or the like. The server must not run."""
    connection = sqlite3.connect(database)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()
