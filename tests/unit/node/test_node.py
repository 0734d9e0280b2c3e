"""One node: its parts work together."""

from __future__ import annotations

import asyncio

from beaconfire.base.errors import EngineUnavailable
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.events import InternalError, WorkDropped
from tests.unit.kit import OPEN, RECOVERABLE, NodeHarness, settle


def test_channel_is_attached_before_history_is_read() -> None:
    """No publication is missed between attach and read."""
    harness = NodeHarness(RECOVERABLE)
    harness.connect("ann", "news")
    assert harness.calls.completed == ["verify ann", "attach news", "history news"]


def test_channel_is_detached_after_its_last_subscription() -> None:
    """The channel stays attached for the delay, and if a new subscription is made meanwhile."""
    harness = NodeHarness()
    client = harness.connect("ann", "news")
    client.request("unsubscribe", channel="news")
    harness.advance_time(0.5)
    assert harness.attached_channels() == 1
    client.request("subscribe", channel="news")
    harness.advance_time(5)
    assert harness.attached_channels() == 1
    client.request("unsubscribe", channel="news")
    harness.advance_time(1)
    assert harness.attached_channels() == 0


def test_stop_waits_for_background_work() -> None:
    """The presence of ended sessions is removed before the broker stops."""

    async def scenario() -> None:
        harness = NodeHarness(ChannelOptions(allow_subscribe_for_client=True, presence=True, join_leave=True))
        client = harness.connect("ann", "news")
        harness.calls.hold("presence_remove")
        client.drop_connection()
        stopping = asyncio.ensure_future(harness.node.stop())
        await settle()
        assert not stopping.done()
        harness.calls.release("presence_remove")
        await stopping
        assert harness.present_clients("news") == set()

    asyncio.run(scenario())


def test_failures_of_background_work_are_reported() -> None:
    """The event has the traceback. The session is not affected."""
    harness = NodeHarness(ChannelOptions(allow_subscribe_for_client=True, presence=True))
    harness.recorder.expects_errors = True
    client = harness.connect("ann", "news")
    harness.calls.fail_next("presence_remove", OSError("no link"))
    client.request("unsubscribe", channel="news")
    assert client.disconnect_code == 0
    [report] = harness.recorder.of(InternalError)
    assert (report.where, "no link" in report.error) == ("background", True)


def test_stop_gives_up_after_its_deadline() -> None:
    """A hanging engine does not keep the process alive. The event says how much was left."""

    async def scenario() -> None:
        harness = NodeHarness(ChannelOptions(allow_subscribe_for_client=True, presence=True))
        clients = [harness.connect("ann", "a"), harness.connect("ann", "b")]
        harness.calls.hold("presence_remove")
        stopping = asyncio.ensure_future(harness.node.stop(2.0))
        await settle()
        assert [client.disconnect_code for client in clients] == [3001, 3001]
        harness.advance_time(1.9)
        await settle()
        assert not stopping.done()
        harness.advance_time(0.1)
        await stopping
        [event] = harness.recorder.of(WorkDropped)
        assert (event.work, event.count) == ("shutdown", 4)

    asyncio.run(scenario())


def test_nothing_calls_the_engine_after_the_stop() -> None:
    """Neither what was left, nor repetitions and delayed detaches. A host may run on for long, with its timers."""

    async def scenario() -> None:
        harness = NodeHarness(ChannelOptions(allow_subscribe_for_client=True, presence=True, join_leave=True))
        harness.connect("ann", "news")
        harness.calls.fail_next("presence_remove", EngineUnavailable("no link"))
        harness.connect("bob", "sport").drop_connection()
        harness.calls.hold("presence_remove")
        stopping = asyncio.ensure_future(harness.node.stop(0.1))
        await settle()
        harness.advance_time(0.1)
        await stopping
        harness.calls.release("presence_remove")
        before = list(harness.calls.completed)
        for _ in range(10):
            harness.advance_time(10)
            await settle()
        assert harness.calls.completed == before

    asyncio.run(scenario())


def test_no_command_survives_the_stop() -> None:
    """A command that waits for a hanging engine is cancelled: the timers of deadlines may have stopped as well."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        client = harness.connect("ann")
        harness.calls.hold("history")
        client.send("subscribe", channel="news")
        await settle()
        stopping = asyncio.ensure_future(harness.node.stop(2.0))
        await settle()
        harness.advance_time(2)
        await stopping
        await settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


def test_stop_repeats_failed_removals() -> None:
    """Within its deadline."""

    async def scenario() -> None:
        harness = NodeHarness(ChannelOptions(allow_subscribe_for_client=True, presence=True))
        harness.connect("ann", "news")
        harness.calls.fail_next("presence_remove", EngineUnavailable("no link"))
        stopping = asyncio.ensure_future(harness.node.stop(2.0))
        await settle()
        harness.advance_time(1)
        await stopping
        assert harness.present_clients("news") == set()
        assert harness.recorder.of(WorkDropped) == []

    asyncio.run(scenario())


def test_statistics_count_connections_users_channels_and_subscriptions() -> None:
    """Connections, authenticated sessions and named users are counted separately."""
    harness = NodeHarness(OPEN)
    harness.open_session()
    harness.connect("ann", "a", "b")
    harness.connect("ann", "b")
    harness.connect()
    statistics = harness.node.statistics()
    assert (statistics.connections, statistics.sessions, statistics.users) == (4, 3, 1)
    assert (statistics.channels, statistics.subscriptions) == (2, 3)
