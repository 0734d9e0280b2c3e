"""Publications are on the disk before they are acknowledged: a power failure loses nothing that a kill would keep.

A test cannot cut the power. Instead strace shows the order of the system calls.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from pathlib import Path

from tests.acceptance.deadlines import run_scenario
from tests.acceptance.disk.api_connection import ApiConnection
from tests.acceptance.disk.disk_server import DiskServer
from tests.acceptance.disk.traced import Step, read_steps, strace

CONNECTIONS = 16
PUBLICATIONS_PER_CONNECTION = 25

WITHOUT_SYNCS = """
import functools, sqlite3

class Connection(sqlite3.Connection):
    def execute(self, sql, *arguments):
        return super().execute(sql.replace("synchronous = FULL", "synchronous = OFF"), *arguments)

sqlite3.connect = functools.partial(sqlite3.connect, factory=Connection)
"""
"""Python runs this at its start, as the module `sitecustomize`."""


def trace_publications(folder: Path, environment: dict[str, str]) -> tuple[list[Step], dict[int, list[str]]]:
    """Publishes on several connections at the same time. Returns the steps of the server, and the marks that each
    connection has sent, by its port and in their order. The answers come in the same order."""
    marks: dict[int, list[str]] = {}
    trace = folder / "trace"

    async def publish(port: int, first: int) -> None:
        async with ApiConnection.open(port) as api:
            sent = marks[api.local_port] = [
                f"mark-{first + number:07}" for number in range(PUBLICATIONS_PER_CONNECTION)
            ]
            for number, mark in enumerate(sent):
                await api.publish(f"room{number % 4}", mark)

    async def scenario(port: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(CONNECTIONS):
                group.create_task(publish(port, number * PUBLICATIONS_PER_CONNECTION))

    with DiskServer(folder, folder / "history.db", launcher=strace(trace), environment=environment) as server:
        run_scenario(scenario(server.port))
        assert server.stop() == 0
        return read_steps(trace, server.pid), marks


def count_unsynced(steps: list[Step], marks: dict[int, list[str]]) -> int:
    """How many publications were acknowledged before the writes of their batch were synced.

    A batch is what is written between two syncs: the writer writes a batch only after it has synced the last one.
    Fails if a publication was acknowledged before it was written at all.
    """
    synced_in: dict[str, int] = {}
    """The number of the sync that follows the first write of the mark."""
    syncs = unsynced = 0
    waiting = defaultdict(deque[str], {port: deque(sent) for port, sent in marks.items()})
    for step in steps:
        if step.kind == "sync":
            syncs += 1
        elif step.kind == "write":
            for mark in step.marks:
                synced_in.setdefault(mark, syncs + 1)
        elif step.port in marks:
            unsynced += syncs < synced_in[waiting[step.port].popleft()]
    assert not any(waiting.values()), "the trace has all responses"
    return unsynced


def test_wal_is_synced_between_the_last_write_of_a_batch_and_its_first_acknowledgement(tmp_path: Path) -> None:
    """Otherwise a power failure could lose publications that were acknowledged."""
    steps, marks = trace_publications(tmp_path, {})
    assert count_unsynced(steps, marks) == 0
    assert sum(step.kind == "sync" for step in steps) > PUBLICATIONS_PER_CONNECTION / 2


def test_missing_syncs_are_found(tmp_path: Path) -> None:
    """The check itself works: with `synchronous = OFF` no publication is synced before its acknowledgement."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_SYNCS)
    steps, marks = trace_publications(tmp_path, {"PYTHONPATH": str(tmp_path)})
    assert count_unsynced(steps, marks) > CONNECTIONS
