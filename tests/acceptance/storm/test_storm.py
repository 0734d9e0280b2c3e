"""Very many clients lose their connections at once and return with their tickets.

`STORM_CLIENTS=10000` runs the full size, 10 % of it with revoked tokens.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from beaconfire.auth.issue import connection_token, subscription_token
from beaconfire.observe.metric_table import TICKET_OUTCOMES
from beaconfire.server.workers.seat import HUB
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.disk.api_connection import ApiConnection
from tests.acceptance.server_state import read_metrics
from tests.acceptance.storm.returning_client import ReturningClient
from tests.acceptance.workers.group import WorkerGroup

CLIENTS = int(os.environ.get("STORM_CLIENTS", "400"))
CHANNELS = max(4, CLIENTS // 100)
MISSED = 3
"""Publications per channel that each client misses."""

REVOKED = CLIENTS // 10
OPENING_MAX = 100
DEADLINE_S = 30 + CLIENTS / 50

SECRET = "a secret of at least thirty-two bytes"
CONFIG = f"""
[server]
drain_rate = 5000
drain_delay = "0s"
[client]
gap_rate_limit = 0
[token]
hmac_secret = "{SECRET}"
[api]
keys = ["api_key"]
[engine]
type = "sqlite"
[channel]
durability = "disk"
history_size = 100
history_ttl = "1h"
force_recovery = true
"""
Metrics = dict[str, float]
TICKETS = "beaconfire_resume_tickets_total"
LATENESS = "beaconfire_loop_lateness_seconds"
LoseAll = Callable[[WorkerGroup, list[ReturningClient]], Awaitable[None]]


@pytest.fixture
def server() -> Iterator[WorkerGroup]:
    with tempfile.TemporaryDirectory(prefix="storm-") as folder:
        path = Path(folder)
        group = WorkerGroup(path, CONFIG, {"engine.path": str(path / "history.db"), "server.workers": "2"})
        with group:
            yield group


def make_client(port: int, number: int) -> ReturningClient:
    user, channel = f"user{number}", f"room{number % CHANNELS}"
    now_unix_s = time.time()
    return ReturningClient(
        port,
        user,
        channel,
        connection_token(SECRET, user, now_unix_s=now_unix_s, expires_in_s=3600),
        subscription_token(SECRET, user, channel, now_unix_s=now_unix_s, expires_in_s=3600),
    )


@asynccontextmanager
async def connected_clients(port: int) -> AsyncIterator[list[ReturningClient]]:
    clients = [make_client(port, number) for number in range(CLIENTS)]
    free = asyncio.Semaphore(OPENING_MAX)

    async def start(client: ReturningClient) -> None:
        async with free:
            await client.start()

    await asyncio.gather(*map(start, clients))
    try:
        assert [client.refused for client in clients if client.refused] == []
        yield clients
    finally:
        await asyncio.gather(*(client.stop() for client in clients))


async def restart(server: WorkerGroup, clients: list[ReturningClient]) -> None:
    """All processes end without a farewell, and the server starts again."""
    others = server.pids().values()
    await asyncio.to_thread(server.stop, signal.SIGKILL)
    for pid in others:
        os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(server.start)


async def kill_workers(server: WorkerGroup, clients: list[ReturningClient]) -> None:
    """All workers crash at the same moment."""
    for name, pid in server.pids().items():
        if name != HUB:
            os.kill(pid, signal.SIGKILL)


async def roll(server: WorkerGroup, clients: list[ReturningClient]) -> None:
    """A deploy: each worker hands its clients over."""
    os.kill(server.pid, signal.SIGHUP)
    await wait_until(lambda: server.log_lines("roll_finished") != [], "all workers are new", DEADLINE_S)


async def cut(server: WorkerGroup, clients: list[ReturningClient]) -> None:
    """The network ends all connections."""
    for client in clients:
        client.cut()


@pytest.mark.timeout(DEADLINE_S + 60)
@pytest.mark.parametrize("lose_all", [restart, kill_workers, roll, cut])
def test_all_clients_return_with_tickets_and_miss_nothing(server: WorkerGroup, lose_all: LoseAll) -> None:
    """No token is verified, because no client sends one, and no revoked ticket is accepted."""

    async def scenario() -> None:
        async with connected_clients(server.port) as clients:
            for client in clients:
                client.is_away = True
            revoked, staying = clients[:REVOKED], clients[REVOKED:]
            async with ApiConnection.open(server.port) as api:
                for number in range(MISSED):
                    rooms = [f"room{number}" for number in range(CHANNELS)]
                    assert "result" in await api.call("broadcast", channels=rooms, data=number)
                for client in revoked:
                    assert "result" in await api.call("revoke", user=client.user)
            await wait_refused(revoked)
            before = await read_metrics(server) if lose_all is cut else {}
            started_s = time.monotonic()
            await lose_all(server, staying)
            for client in revoked:
                client.try_again()
            await wait_until(lambda: all(map(_has_all, staying)), "all are back", DEADLINE_S)
            took_s = time.monotonic() - started_s
            await wait_refused(revoked)
            after = await read_metrics(server)
            check(clients, before, after, lose_all is roll)
            print_figures(lose_all.__name__, took_s, before, after)
            print(f"failed attempts: {dict(sum((client.failed_attempts for client in clients), Counter()))}")

    run_scenario(scenario(), DEADLINE_S)


async def wait_refused(clients: list[ReturningClient]) -> None:
    """The server ends the sessions of revoked users at once, and refuses their tickets."""
    await wait_until(lambda: all(client.refused for client in clients), "the others are refused", DEADLINE_S)
    assert {client.refused for client in clients} == {"3501"}


def _has_all(client: ReturningClient) -> bool:
    return client.is_back and client.offset == MISSED


def check(clients: list[ReturningClient], before: Metrics, after: Metrics, workers_ended: bool) -> None:
    """A client may return more than once: its answer was lost, or a later worker hands it over. What was counted by a
    worker that has ended is missing."""
    assert [client.problems for client in clients if client.problems] == []
    for kind, refused in (("connection", REVOKED), ("subscription", 0)):
        outcomes = {name: count(before, after, TICKETS, kind=kind, outcome=name) for name in TICKET_OUTCOMES}
        assert outcomes.pop("accepted") >= (0 if workers_ended else len(clients) - REVOKED)
        assert outcomes.pop("revoked") >= refused
        assert set(outcomes.values()) == {0}


def print_figures(name: str, took_s: float, before: Metrics, after: Metrics) -> None:
    reads, asked = (count(before, after, f"beaconfire_history_reads{kind}_total") for kind in ("", "_requested"))
    turns = count(before, after, f"{LATENESS}_count")
    late = {bound: turns - count(before, after, f"{LATENESS}_bucket", le=bound) for bound in ("0.05", "0.1", "0.25")}
    print(
        f"{name}: {CLIENTS} clients, all back after {took_s:.2f} s; {reads} reads of history for {asked} requests in "
        f"{CHANNELS} channels; loop later than {late} times"
    )


def count(before: Metrics, after: Metrics, name: str, **labels: str) -> int:
    """The difference of a counter, over all workers."""

    def total(metrics: Metrics) -> float:
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            value
            for series, value in metrics.items()
            if series.partition("{")[0] == name and all(label in series for label in wanted)
        )

    return int(total(after) - total(before))
