"""The server API while a worker or the hub does not answer: an error that tells to try again, and never a part of an
answer that looks like the whole."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from beaconfire.api.methods import METHODS
from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.disk.api_connection import ApiConnection
from tests.acceptance.json_client import JSONClient
from tests.acceptance.workers.group import WORKERS, WorkerGroup

TEMPORARY = 100
BOUND_S = 16.0
"""How long an answer may take: a survey waits 5 s for all nodes, and each call of the engine 3 s (`engine.timeout`)."""

CALLS: Final[Mapping[str, dict[str, Any]]] = {
    "publish": {"channel": "x", "data": 1},
    "broadcast": {"channels": ["x", "y"], "data": 1},
    "subscribe": {"user": "ann", "channel": "x"},
    "unsubscribe": {"user": "ann", "channel": "x"},
    "disconnect": {"user": "ann"},
    "refresh": {"user": "ann"},
    "revoke": {"user": "ann"},
    "send": {"user": "ann", "data": 1},
    "presence": {"channel": "watched:x"},
    "presence_stats": {"channel": "watched:x"},
    "history": {"channel": "x"},
    "history_remove": {"channel": "x"},
    "channels": {},
    "connections": {},
    "info": {},
}
LOCAL: Final = frozenset({"batch", "rpc"})
"""Methods that use no engine themselves."""

MIGRATION: Final = frozenset({"migration", "migration_read", "migration_verify"})
"""Methods that fail without a migration, also when all is well."""


@asynccontextmanager
async def stopped(pid: int) -> AsyncIterator[None]:
    """The process hangs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def call_bounded(api: ApiConnection, method: str, **fields: object) -> dict[str, Any]:
    async with asyncio.timeout(BOUND_S):
        return await api.call(method, **fields)


def test_every_method_says_that_the_hub_does_not_answer(group: WorkerGroup) -> None:
    """With the temporary error. Afterwards all methods work again."""

    async def call(method: str) -> list[int]:
        """The codes of the errors."""
        async with ApiConnection.open(group.port) as api:
            response = await call_bounded(api, method, **CALLS[method])
        responses = response["result"]["responses"] if method == "broadcast" and "result" in response else [response]
        return [each.get("error", {}).get("code", 0) for each in responses]

    async def works(method: str) -> bool:
        return set(await call(method)) == {0}

    async def scenario() -> None:
        asked = set(CALLS)
        async with stopped(group.pids()["hub"]):
            answers = await asyncio.gather(*map(call, CALLS))
        assert {method: codes for method, codes in zip(CALLS, answers, strict=True) if set(codes) != {TEMPORARY}} == {}
        for method in asked:
            await wait_until(lambda method=method: works(method), f"{method} works")  # type: ignore[misc]

    run_scenario(scenario(), 90)


def test_lists_without_a_hanging_worker_are_errors(group: WorkerGroup) -> None:
    """`info` has the nodes that answer. What changes sessions is carried out when the worker goes on. Readiness names
    the worker."""
    slot = "0"

    async def answers(api: ApiConnection) -> bool:
        try:
            async with asyncio.timeout(3):
                return "result" in await api.call("publish", channel="x", data=1)
        except TimeoutError:
            return False

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(JSONClient.connect(group.port, channels=["bare:list"]))
                for _ in range(32)
            ]
            apis = [await stack.enter_async_context(ApiConnection.open(group.port)) for _ in range(16)]
            for api in apis:
                await api.publish("x", 1)
            async with stopped(group.pids()[slot]):
                are_served = await asyncio.gather(*map(answers, apis))
                served = [api for api, is_served in zip(apis, are_served, strict=True) if is_served]
                methods = ("channels", "connections", "info", "disconnect")
                channels, connections, info, disconnect = await asyncio.gather(
                    *(call_bounded(api, method, **CALLS[method]) for api, method in zip(served, methods, strict=False))
                )
                assert [channels["error"]["code"], connections["error"]["code"]] == [TEMPORARY] * 2
                assert len(info["result"]["nodes"]) == WORKERS - 1
                assert "result" in disconnect
            await wait_until(group.is_ready, "the worker answers")
            # A client may have lost its connection, because the worker was late with its pings.
            found = (await call_bounded(served[0], "connections"))["result"]["connections"]
            assert {client.client_id for client in clients if not client.closed.done()} <= set(found)

    run_scenario(scenario(), 90)


def test_a_list_of_all_methods() -> None:
    """A method that is added needs a row."""
    assert set(CALLS) | LOCAL | MIGRATION >= set(METHODS)
