"""One node: its parts work together."""

from __future__ import annotations

import asyncio

from beaconfire.channels.options import ChannelOptions
from beaconfire.model.events import InternalError
from tests.unit.kit import OPEN, RECOVERABLE, NodeHarness, settle


def test_channel_is_attached_before_history_is_read() -> None:
    """Hold, attach, read: no publication is missed in between."""
    harness = NodeHarness(RECOVERABLE)
    harness.connect("ann", "news")
    assert harness.calls.completed == ["verify ann", "attach news", "history news"]


def test_channel_is_detached_after_its_last_subscription() -> None:
    """After the delay, unless a new subscription is made before."""
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
    """With the traceback. The session is not affected."""
    harness = NodeHarness(ChannelOptions(allow_subscribe_for_client=True, presence=True))
    harness.recorder.expects_errors = True
    client = harness.connect("ann", "news")
    harness.calls.fail_next("presence_remove", OSError("no link"))
    client.request("unsubscribe", channel="news")
    assert client.disconnect_code == 0
    [report] = harness.recorder.of(InternalError)
    assert (report.where, "no link" in report.error) == ("background", True)


def test_statistics_count_connections_users_channels_and_subscriptions() -> None:
    """Open connections, authenticated sessions and named users."""
    harness = NodeHarness(OPEN)
    harness.open_session()
    harness.connect("ann", "a", "b")
    harness.connect("ann", "b")
    harness.connect()
    statistics = harness.node.statistics()
    assert (statistics.connections, statistics.sessions, statistics.users) == (4, 3, 1)
    assert (statistics.channels, statistics.subscriptions) == (2, 3)
