"""Redis hangs, restarts, forgets everything, or answers without announcing."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.deadlines import run_scenario, wait_until
from tests.acceptance.disk.api_connection import ApiConnection
from tests.acceptance.json_client import JSONClient
from tests.acceptance.redis_trouble.conftest import Node, running_node
from tests.servers.redis_server import RedisServer

CHANNEL = "room"
ERROR_WITHIN_S = 1.0
BACK_WITHIN_S = 2.0
MACHINE_S = 4.0
"""What a busy machine may add to these times."""


class Stage(NamedTuple):
    """Redis, two nodes, a subscriber on the second and the API of the first."""

    redis: RedisServer
    one: Node
    two: Node
    client: JSONClient
    api: ApiConnection

    async def publish(self, data: object) -> bool:
        """Whether the publish has succeeded."""
        response = await self.api.call("publish", channel=CHANNEL, data=data)
        if "error" in response:
            assert response["error"]["code"] == 100, response
        return "result" in response

    async def publish_until_accepted(self, data: object) -> None:
        await wait_until(lambda: self.publish(data), "a publish succeeds")

    async def received(self, count: int) -> list[object]:
        await wait_until(lambda: len(self.client.received_data(CHANNEL)) >= count, f"{count} are delivered")
        return list(self.client.received_data(CHANNEL))

    @property
    def told(self) -> bool:
        return any("unsubscribe" in push for push in self.client.pushes)


@asynccontextmanager
async def stage(folder: Path, *options: str) -> AsyncIterator[Stage]:
    redis = RedisServer("redis", *options)
    redis.start()
    try:
        async with (
            running_node(folder, redis.port) as one,
            running_node(folder, redis.port) as two,
            JSONClient.connect(two.server.port, channels=[CHANNEL]) as client,
            ApiConnection.open(one.server.port) as api,
        ):
            yield Stage(redis, one, two, client, api)
    finally:
        redis.close()


def run_on_stage(folder: Path, act: Callable[[Stage], Awaitable[None]], *options: str) -> None:
    async def scenario() -> None:
        async with stage(folder, *options) as each:
            await act(each)
            assert not each.client.closed.done(), "no client is disconnected"

    run_scenario(scenario(), 90.0)


@pytest.mark.timeout(120)
def test_a_server_that_hangs(tmp_path: Path) -> None:
    """Publishers get a temporary error within a second, readiness shows it, and afterwards nobody has missed
    anything."""

    async def act(s: Stage) -> None:
        assert await s.publish("before")
        s.redis.send_signal(signal.SIGSTOP)
        started_s = time.monotonic()
        assert not await s.publish("refused")
        took_s = time.monotonic() - started_s
        assert took_s < ERROR_WITHIN_S + MACHINE_S
        await s.two.wait_ready(False)
        red_s = time.monotonic() - started_s
        await asyncio.sleep(5.0)
        s.redis.send_signal(signal.SIGCONT)
        started_s = time.monotonic()
        await s.two.wait_ready()
        green_s = time.monotonic() - started_s
        assert green_s < BACK_WITHIN_S + MACHINE_S
        await s.publish_until_accepted("after")
        print(f"refused after {took_s:.2f} s, red after {red_s:.2f} s, green after {green_s:.2f} s")
        await wait_until(lambda: "after" in s.client.received_data(CHANNEL), "the last one is delivered")
        received = [each for each in s.client.received_data(CHANNEL) if each != "refused"]  # it may have been stored
        assert received == ["before", "after"]
        assert not s.told

    run_on_stage(tmp_path, act)


@pytest.mark.timeout(120)
def test_a_server_that_restarts_with_its_data(tmp_path: Path) -> None:
    """With an append-only file that is flushed at each write, nothing is lost, and no client notices anything."""

    async def act(s: Stage) -> None:
        for number in range(100):
            assert await s.publish(number)
        s.redis.stop(signal.SIGKILL)
        assert not await s.publish("refused")
        s.redis.start()
        for number in range(100, 110):
            await s.publish_until_accepted(number)
        assert await s.received(110) == list(range(110))
        assert not s.told

    run_on_stage(tmp_path, act, "--appendonly", "yes", "--appendfsync", "always")


@pytest.mark.timeout(120)
def test_connections_for_announcements_that_are_killed(tmp_path: Path) -> None:
    """Again and again while publications are made: none is missing."""

    async def act(s: Stage) -> None:
        for number in range(300):
            await s.publish_until_accepted(number)
            if number % 30 == 0:
                s.redis.call("CLIENT", "KILL", "TYPE", "pubsub")
        assert await s.received(300) == list(range(300))
        assert not s.told

    run_on_stage(tmp_path, act)


@pytest.mark.timeout(120)
def test_a_server_that_answers_and_announces_nothing(tmp_path: Path) -> None:
    """The node notices this within ten seconds, connects again, and delivers what was missed."""

    async def act(s: Stage) -> None:
        assert await s.publish("before")
        await s.received(1)
        s.two.proxy.mute_those_that_sent(b"SUBSCRIBE")
        started_s = time.monotonic()
        assert await s.publish("missed")
        assert await s.received(2) == ["before", "missed"]
        print(f"noticed after {time.monotonic() - started_s:.1f} s")
        assert time.monotonic() - started_s < 10.0 + MACHINE_S
        assert not s.told

    run_on_stage(tmp_path, act)


@pytest.mark.timeout(120)
def test_announcements_that_are_garbage(tmp_path: Path) -> None:
    """Somebody else publishes under the names of the servers: each message is reported, and everything goes on."""

    async def act(s: Stage) -> None:
        garbage = (b"", b"x", b"p", b"p1:e:0", b"px:e:0:123456789012", b"p1:e:0:123456789012\xc1", b"n\xc1", b"c\xc1")
        for data in garbage:
            assert s.redis.call("PUBLISH", "beaconfire:{room}", data) == 1
            assert s.redis.call("PUBLISH", "beaconfire::{control}", data) == 2
        assert await s.publish("after")
        assert await s.received(1) == ["after"]
        assert len((await s.api.call("info"))["result"]["nodes"]) == 2
        assert any(line["action"] == "internal_error" for line in s.two.server.log)
        assert not s.told
        assert len(s.redis.call("CLIENT", "LIST", "TYPE", "pubsub").splitlines()) == 2

    run_on_stage(tmp_path, act)


@pytest.mark.timeout(120)
def test_a_server_that_is_emptied(tmp_path: Path) -> None:
    """Subscribers with a position are told within four seconds, although nothing more is published, and presence is
    complete within six."""

    async def act(s: Stage) -> None:
        assert await s.publish("before")
        await s.received(1)

        async def complete() -> bool:
            stats = await s.api.call("presence_stats", channel="live:room")
            return "result" in stats and stats["result"]["num_clients"] == 1

        async with JSONClient.connect(s.two.server.port, channels=["live:room"]):
            await wait_until(complete, "the client is present")
            s.redis.call("FLUSHALL")
            started_s = time.monotonic()
            await wait_until(lambda: s.told, "the subscriber is told")
            told_s = time.monotonic() - started_s
            await wait_until(complete, "presence is complete")
            present_s = time.monotonic() - started_s
        print(f"told after {told_s:.1f} s, presence complete after {present_s:.1f} s")
        assert told_s < 4.0 + MACHINE_S
        assert present_s < 6.0 + MACHINE_S

    run_on_stage(tmp_path, act)
