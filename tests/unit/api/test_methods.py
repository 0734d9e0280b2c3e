"""Calling methods by name, and batches."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from beaconfire.api.decoding import InvalidJsonError
from beaconfire.api.messages.publishing import PublishRequest, PublishResult
from beaconfire.api.methods import COMMANDS_PER_TIME_CHECK, METHODS, Params
from beaconfire.api.options import ApiOptions
from beaconfire.base.errors import (
    BAD_REQUEST,
    INTERNAL,
    METHOD_NOT_FOUND,
    CommandError,
)
from beaconfire.base.units import Size
from beaconfire.observe.metric_table import API_METHODS
from beaconfire.testing import ManualCalls
from tests.unit.api.harness import ApiHarness


def test_metrics_know_every_method() -> None:
    """A method that is missing in the metrics would be counted as `other`."""
    assert set(METHODS) == API_METHODS


@pytest.mark.parametrize(
    "params",
    [
        b'{"channel":"chat","data":{"n":1}}',
        Raw(b'{"channel":"chat","data":{"n":1}}'),
        {"channel": "chat", "data": {"n": 1}},
        PublishRequest(channel="chat", data=Raw(b'{"n":1}')),
    ],
)
def test_params_can_be_text_mapping_or_struct(params: Params) -> None:
    """All three have the same result."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat")
        assert await harness.api.call("publish", params) == PublishResult(offset=1, epoch="epoch", durability="memory")
        assert client.data() == [{"n": 1}]

    asyncio.run(main())


def test_an_unknown_method_is_error_104() -> None:
    """In events all unknown methods have the same name, because clients can use any name."""

    async def main() -> None:
        harness = await ApiHarness().start()
        with pytest.raises(CommandError, match="unknown method 'publsh'") as caught:
            await harness.api.call("publsh")
        assert caught.value.code is METHOD_NOT_FOUND
        assert harness.calls() == [("unknown", 104)]

    asyncio.run(main())


def test_text_that_is_not_json_has_its_own_exception() -> None:
    """HTTP uses another status for it. For other callers it is error 107."""

    async def main() -> None:
        harness = await ApiHarness().start()
        with pytest.raises(InvalidJsonError) as caught:
            await harness.api.call("publish", b'{"channel"')
        assert caught.value.code is BAD_REQUEST
        assert harness.calls() == [("publish", 107)]

    asyncio.run(main())


def test_an_unexpected_exception_becomes_error_100(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only CommandError is raised. The cause is reported as an event and not shown to the caller."""

    async def fail(channel: str) -> Any:
        raise OSError("password in the message")

    async def main() -> None:
        harness = await ApiHarness().start()
        monkeypatch.setattr(harness.engine.presence, "members", fail)
        with pytest.raises(CommandError) as caught:
            await harness.call("presence", channel="chat")
        assert (caught.value.code, caught.value.detail) == (INTERNAL, "")
        assert harness.internal_errors() == ["api presence"]
        assert harness.calls() == [("presence", 100)]

    asyncio.run(main())


def test_a_call_needs_no_task_if_the_engine_does_not_suspend() -> None:
    """The call consists of function calls without a task switch."""

    async def main() -> None:
        harness = await ApiHarness().start()
        harness.connect("ann", "chat")
        made: list[object] = []

        def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> Any:
            made.append(coroutine)
            return asyncio.Task(coroutine, loop=loop, **more)

        asyncio.get_running_loop().set_task_factory(factory)
        await harness.call("publish", channel="chat", data=1)
        await harness.call("broadcast", channels=["chat", "x", "y"], data=1)
        await harness.call("subscribe", user="ann", channel="other")
        await harness.call("disconnect", user="ann")
        publish = {"publish": {"channel": "chat", "data": 1}}
        await harness.call("batch", commands=[publish, {"info": {}}], parallel=True)
        assert made == []

    asyncio.run(main())


@pytest.mark.parametrize("parallel", [False, True])
def test_a_batch_has_replies_in_order(parallel: bool) -> None:
    """Each command has a reply, also if it fails. An empty result still has the key of its method."""

    async def main() -> None:
        harness = await ApiHarness().start()
        client = harness.connect("ann", "chat")
        commands: list[dict[str, Any]] = [
            {"publish": {"channel": "chat", "data": 1}},
            {"publish": {"channel": "", "data": 2}},
            {"history_remove": {"channel": "chat"}},
            {"presence_stats": {"channel": "chat"}, "unknown": 1},
            {"nothing": {}},
            {},
            {"batch": {"commands": []}},
            {"publish": None},
            {"broadcast": {"channels": ["chat", "nowhere:x"], "data": 3}},
        ]
        replies = (await harness.call("batch", commands=commands, parallel=parallel))["replies"]
        assert replies[0] == {"publish": {"offset": 1, "epoch": "epoch", "durability": "memory"}}
        assert replies[1]["error"]["code"] == 107
        assert replies[2] == {"history_remove": {}}
        assert replies[3] == {"presence_stats": {"num_clients": 1, "num_users": 1}}
        assert [reply["error"]["code"] for reply in replies[4:8]] == [104, 104, 104, 104]
        assert replies[8]["broadcast"]["responses"][1]["error"]["code"] == 102
        assert client.data() == [1, 3]
        assert harness.calls() == [
            ("publish", 0),
            ("publish", 107),
            ("history_remove", 0),
            ("presence_stats", 0),
            ("broadcast", 0),
            ("batch", 0),
        ]

    asyncio.run(main())


def made(calls: ManualCalls) -> list[str]:
    """The calls of the engine without those of the node itself."""
    return [call for call in calls.completed if "revocations" not in call]


def test_publishes_of_a_batch_wait_together() -> None:
    """If the engine keeps their order anyway. Any other command waits for all commands before it, and ends before the
    next one begins."""

    async def main() -> None:
        calls = ManualCalls()
        harness = await ApiHarness(calls=calls).start()
        release = calls.hold("publish", after=True)
        publishes = [{"publish": {"channel": channel, "data": 1}} for channel in ("chat", "chat", "nowhere:x", "late")]
        commands = [*publishes, {"history_remove": {"channel": "chat"}}, {"info": {}}, publishes[0]]
        batch = asyncio.ensure_future(harness.call("batch", commands=commands))
        await turns(10)
        assert made(calls) == ["publish chat", "publish chat", "publish late"]
        later = calls.hold("publish", after=True)
        release()
        await turns(10)
        assert made(calls)[3:] == ["remove_history chat", "control_broadcast ", "control_survey ", "publish chat"]
        later()
        replies = (await batch)["replies"]
        assert [reply["publish"]["offset"] for reply in (*replies[:2], replies[3], replies[6])] == [1, 2, 1, 3]
        assert replies[2]["error"]["code"] == 102

    async def turns(count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    asyncio.run(main())


def test_publishes_of_a_batch_overlap_only_if_the_engine_keeps_their_order() -> None:
    """Otherwise each waits for the one before."""

    async def main() -> None:
        calls = ManualCalls()
        harness = await ApiHarness(calls=calls, keeps_order=False).start()
        release = calls.hold("publish", after=True)
        commands = [{"publish": {"channel": "chat", "data": 1}}] * 2
        batch = asyncio.ensure_future(harness.call("batch", commands=commands))
        for _ in range(10):
            await asyncio.sleep(0)
        assert made(calls) == ["publish chat"]
        release()
        assert len((await batch)["replies"]) == 2

    asyncio.run(main())


def test_a_batch_without_commands() -> None:
    """The list may be empty, but is required."""

    async def main() -> None:
        harness = await ApiHarness().start()
        assert await harness.call("batch", commands=[]) == {"replies": []}
        with pytest.raises(CommandError, match="commands is required"):
            await harness.call("batch")

    asyncio.run(main())


def test_a_batch_has_a_limit() -> None:
    """Above `api.batch_max` no command is executed, and the limit is counted."""

    async def main() -> None:
        harness = await ApiHarness(ApiOptions(batch_max=2)).start()
        client = harness.connect("ann", "chat")
        command = {"publish": {"channel": "chat", "data": 1}}
        assert len((await harness.call("batch", commands=[command] * 2))["replies"]) == 2
        with pytest.raises(CommandError, match="commands: expected at most 2, got 3"):
            await harness.call("batch", commands=[command] * 3)
        assert client.data() == [1, 1]
        assert harness.limits_hit() == ["api.batch_max"]

    asyncio.run(main())


@pytest.mark.parametrize("parallel", [False, True])
def test_a_batch_stops_if_the_response_is_full(parallel: bool) -> None:
    """Each remaining command gets error 111 and can be sent again."""

    async def main() -> None:
        harness = await ApiHarness(ApiOptions(response_max_size=Size(1000))).start()
        client = harness.connect("ann", "chat")
        await harness.call("publish", channel="chat", data="x" * 300)
        commands: list[dict[str, Any]] = [{"history": {"channel": "chat", "limit": -1}}] * 5
        commands.append({"publish": {"channel": "chat", "data": "too late"}})
        replies = (await harness.call("batch", commands=commands, parallel=parallel))["replies"]
        assert [reply.get("error", {"code": 0})["code"] for reply in replies] == [0, 0, 0, 111, 111, 111]
        assert "send this command again" in replies[-1]["error"]["detail"]
        assert client.data() == ["x" * 300]
        assert harness.limits_hit() == ["api.response_max_size"] * 3

    asyncio.run(main())


def test_a_long_batch_runs_in_slices() -> None:
    """The event loop runs other work in between."""

    async def main() -> None:
        harness = await ApiHarness().start()
        turns = 0

        async def count() -> None:
            nonlocal turns
            turns += 1

        harness.node.turns.wait_for_next = count  # type: ignore[method-assign]
        history = harness.node.channels.history

        async def take_a_while(*arguments: Any, **more: Any) -> Any:
            harness.clock.advance(0.001)
            return await history(*arguments, **more)

        harness.node.channels.history = take_a_while  # type: ignore[method-assign]
        await harness.call("batch", commands=[{"history": {"channel": "chat", "limit": 0}}] * 40)
        assert turns == 40 / COMMANDS_PER_TIME_CHECK - 1

    asyncio.run(main())


def test_results_are_always_valid_json() -> None:
    """Published bytes that are not JSON are returned in base64."""

    async def main() -> None:
        harness = await ApiHarness().start()
        await harness.call("publish", channel="chat", b64data="e30g/w==")
        result = await harness.api.call("batch", {"commands": [{"history": {"channel": "chat", "limit": 1}}]})
        replies = msgspec.json.decode(msgspec.json.encode(result))["replies"]
        assert replies[0]["history"]["publications"] == [{"b64data": "e30g/w==", "offset": 1}]

    asyncio.run(main())
