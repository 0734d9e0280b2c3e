"""Very many clients lose their connections at once and return with their tickets.

`STORM_CLIENTS=10000` runs the full size, 10 % of it with revoked tokens.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from beaconfire.auth.issue import connection_token, subscription_token
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.server_process import ServerProcess
from tests.acceptance.server_state import read_metrics
from tests.acceptance.storm.api import call, publish_to_all
from tests.acceptance.storm.returning_client import ReturningClient

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
Cut = Callable[[ServerProcess, list[ReturningClient]], Awaitable[None]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, CONFIG, {"engine.path": str(tmp_path / "history.db")}) as process:
        yield process


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


async def start_all(port: int, count: int) -> list[ReturningClient]:
    clients = [make_client(port, number) for number in range(count)]
    free = asyncio.Semaphore(OPENING_MAX)

    async def start(client: ReturningClient) -> None:
        async with free:
            await client.start()

    await asyncio.gather(*map(start, clients))
    assert [client.refused for client in clients if client.refused] == []
    return clients


async def kill_and_restart(server: ServerProcess, clients: list[ReturningClient]) -> None:
    await asyncio.to_thread(server.stop, signal.SIGKILL)
    await asyncio.to_thread(server.start)


async def drain_and_restart(server: ServerProcess, clients: list[ReturningClient]) -> None:
    await asyncio.to_thread(server.stop, signal.SIGTERM)
    await asyncio.to_thread(server.start)


async def cut_all(server: ServerProcess, clients: list[ReturningClient]) -> None:
    for client in clients:
        client.cut()


@pytest.mark.timeout(DEADLINE_S + 60)
@pytest.mark.parametrize("cut", [kill_and_restart, drain_and_restart, cut_all])
def test_all_clients_return_with_tickets_and_miss_nothing(server: ServerProcess, cut: Cut) -> None:
    """No token is verified, because no client sends one, and no revoked ticket is accepted."""

    async def scenario() -> None:
        clients = await start_all(server.port, CLIENTS)
        for client in clients:
            client.is_away = True
        await publish_to_all(server.port, [f"room{number}" for number in range(CHANNELS)], MISSED)
        revoked, staying = clients[:REVOKED], clients[REVOKED:]
        await call(server.port, *(("revoke", {"user": client.user}) for client in revoked))
        await wait_refused(revoked)
        before = await read_metrics(server) if cut is cut_all else {}
        started_s = time.monotonic()
        await cut(server, staying)
        for client in revoked:
            client.try_again()
        await wait_until(lambda: all(map(_has_all, staying)), "all are back", DEADLINE_S)
        took_s = time.monotonic() - started_s
        await wait_refused(revoked)
        after = await read_metrics(server)
        check(clients, before, after)
        print_figures(cut.__name__, took_s, before, after)
        for client in clients:
            client.stop()
        await wait_until(lambda: not any(client.is_connected for client in clients), "all connections have ended")

    run_scenario(scenario(), DEADLINE_S)


async def wait_refused(clients: list[ReturningClient]) -> None:
    """The server ends the sessions of revoked users at once, and refuses their tickets."""
    await wait_until(lambda: all(client.refused for client in clients), "the others are refused", DEADLINE_S)
    assert {client.refused for client in clients} == {"3501"}


def _has_all(client: ReturningClient) -> bool:
    return client.is_back and client.offset == MISSED


def difference(before: dict[str, float], after: dict[str, float], name: str) -> int:
    return int(after[name] - before.get(name, 0))


def check(clients: list[ReturningClient], before: dict[str, float], after: dict[str, float]) -> None:
    assert [client.problems for client in clients if client.problems] == []
    accepted, refused = (
        difference(before, after, f'beaconfire_resume_tickets_total{{kind="connection",outcome="{outcome}"}}')
        for outcome in ("accepted", "revoked")
    )
    assert (accepted, refused) == (CLIENTS - REVOKED, REVOKED)
    accepted_channels = 'beaconfire_resume_tickets_total{kind="subscription",outcome="accepted"}'
    assert difference(before, after, accepted_channels) == CLIENTS - REVOKED


def print_figures(name: str, took_s: float, before: dict[str, float], after: dict[str, float]) -> None:
    reads, asked = (difference(before, after, f"beaconfire_history_reads{kind}_total") for kind in ("", "_requested"))
    late = {
        bound: difference(before, after, "beaconfire_loop_lateness_seconds_count")
        - difference(before, after, f'beaconfire_loop_lateness_seconds_bucket{{le="{bound}"}}')
        for bound in ("0.05", "0.1", "0.25")
    }
    print(
        f"{name}: {CLIENTS} clients, all back after {took_s:.2f} s; {reads} reads of history for {asked} requests in "
        f"{CHANNELS} channels; loop later than {late} times"
    )
