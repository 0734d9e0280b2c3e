"""The queue of a session's commands: order, slices, and when reading pauses."""

from __future__ import annotations

import asyncio
import json

import pytest

from beaconfire.base.errors import SHUTDOWN
from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from tests.fakes.clock import AdvancingClock
from tests.unit.kit import RECOVERABLE, HarnessClient, NodeHarness, settle

PRESENCE = ChannelOptions(allow_subscribe_for_client=True, presence=True, allow_presence_for_client=True)


def presence_commands(count: int, first: int = 100) -> str:
    return "\n".join(json.dumps({"id": first + n, "presence": {"channel": "news"}}) for n in range(count))


def is_reading_paused(client: HarnessClient) -> bool:
    return client.session.is_reading_paused


def test_commands_of_one_frame_run_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few milliseconds in one turn, the rest in later turns, in order. Reading pauses meanwhile."""
    harness = NodeHarness(PRESENCE)
    client = harness.connect("ann")
    monkeypatch.setattr(harness.node._context, "clock", AdvancingClock(harness.clock, 0.0002))
    client.send_text(presence_commands(500))
    at_once = harness.node._context.replies_total
    assert 0 < at_once < 100
    assert is_reading_paused(client)
    harness.run_scheduled()
    assert [message["id"] for message in client.receive()] == list(range(100, 600))
    assert not is_reading_paused(client)
    assert harness.recorder.limits() == ["client.command_queue_max"]


def test_commands_of_later_frames_wait_for_queued_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame may arrive after reading was paused."""
    harness = NodeHarness(PRESENCE)
    client = harness.connect("ann")
    monkeypatch.setattr(harness.node._context, "clock", AdvancingClock(harness.clock, 0.0002))
    client.send_text(presence_commands(60))
    client.send_text(presence_commands(1, first=900))
    harness.run_scheduled()
    assert [message["id"] for message in client.receive()] == [*range(100, 160), 900]


def test_pong_deadline_is_extended_while_reading_is_paused() -> None:
    """The pong may wait in the socket."""

    async def scenario() -> None:
        harness = NodeHarness(READING, command_queue_max=1)
        client = harness.connect("ann")
        harness.calls.hold("history")
        for _ in range(2):
            client.send("history", channel="a")
        assert client.transport.reading == ["pause"]
        harness.advance_time(60)
        assert client.disconnect_code == 0
        harness.calls.release("history")
        await settle()
        assert client.transport.reading == ["pause", "resume"]
        harness.advance_time(60)
        assert client.disconnect_code == 3012

    asyncio.run(scenario())


READING = ChannelOptions(
    allow_subscribe_for_client=True, allow_history_for_client=True, history_size=5, history_ttl=Seconds(60)
)


def test_commands_wait_for_the_suspended_one() -> None:
    """They are answered in order, each once."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        client = harness.connect("ann")
        harness.calls.hold("history")
        numbers = [
            client.send("history", channel="a"),
            client.send("publish", channel="a", data=1),
            client.send("subscribe", channel="a"),
            client.send("rpc"),
            client.send("unsubscribe", channel="a"),
        ]
        await settle()
        assert client.receive() == []
        harness.calls.release("history")
        await settle()
        assert [message["id"] for message in client.receive() if "id" in message] == numbers

    asyncio.run(scenario())


PUBLISHING = ChannelOptions(
    allow_subscribe_for_client=True, allow_publish_for_client=True, history_size=5, history_ttl=Seconds(60)
)


def test_publishes_overlap_if_the_engine_keeps_their_order() -> None:
    """They are started together. A command after them waits for all of them, and those after it wait for it."""

    async def scenario() -> None:
        harness = NodeHarness(PUBLISHING)
        client = harness.connect("ann")
        harness.calls.hold("publish", after=True)
        harness.node.operations.publishes_overlap = True
        numbers = [client.send("publish", channel="a", data=number) for number in range(3)]
        numbers += [client.send("unsubscribe", channel="a"), client.send("publish", channel="a", data=3)]
        await settle()
        assert harness.calls.completed.count("publish a") == 3
        assert client.receive() == []
        harness.calls.release("publish", after=True)
        await settle()
        assert [message["id"] for message in client.receive() if "id" in message] == numbers

    asyncio.run(scenario())


def test_overlapping_publishes_are_limited() -> None:
    """As many as commands may wait."""

    async def scenario() -> None:
        harness = NodeHarness(PUBLISHING, command_queue_max=2)
        client = harness.connect("ann")
        harness.calls.hold("publish", after=True)
        harness.node.operations.publishes_overlap = True
        numbers = [client.send("publish", channel="a", data=number) for number in range(4)]
        await settle()
        assert harness.calls.completed.count("publish a") == 2
        harness.calls.release("publish", after=True)
        await settle()
        assert [message["id"] for message in client.receive()] == numbers

    asyncio.run(scenario())


def test_a_session_that_ends_keeps_its_overlapping_publishes() -> None:
    """They come to their end in the background, without replies."""

    async def scenario() -> None:
        harness = NodeHarness(PUBLISHING)
        client = harness.connect("ann")
        harness.calls.hold("publish", after=True)
        harness.node.operations.publishes_overlap = True
        for number in range(2):
            client.send("publish", channel="a", data=number)
        await settle()
        client.session.end(SHUTDOWN)
        assert len(harness.node.background) == 2
        harness.calls.release("publish", after=True)
        await settle()
        assert len(harness.node.background) == 0

    asyncio.run(scenario())


def test_sessions_do_not_wait_for_each_other() -> None:
    """A suspended command delays only the commands of its session."""

    async def scenario() -> None:
        harness = NodeHarness(READING)
        slow, fast = harness.connect("ann"), harness.connect("bob")
        harness.calls.hold("history")
        slow.send("history", channel="a")
        await settle()
        number = fast.send("subscribe", channel="a")
        await settle()
        assert [message["id"] for message in fast.receive()] == [number]
        harness.calls.release("history")
        await settle()

    asyncio.run(scenario())


def test_reading_pauses_while_the_queue_is_full() -> None:
    """It pauses once at the limit, and resumes when the queue is empty."""

    async def scenario() -> None:
        harness = NodeHarness(READING, command_queue_max=3)
        client = harness.connect("ann")
        harness.calls.hold("history")
        numbers = [client.send("history", channel="a") for _ in range(3)]
        assert client.transport.reading == []
        numbers += [client.send("history", channel="a") for _ in range(5)]
        assert client.transport.reading == ["pause"]
        assert harness.recorder.limits() == ["client.command_queue_max"]
        harness.calls.release("history")
        await settle()
        assert client.transport.reading[-1] == "resume"
        assert client.transport.reading.count("pause") == 1
        assert [message["id"] for message in client.receive()] == numbers

    asyncio.run(scenario())


def test_ended_session_runs_no_more_commands() -> None:
    """Queued and new commands are dropped, and reading does not resume."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE, command_queue_max=1)
        client = harness.connect("ann")
        harness.calls.hold("history")
        client.send("history", channel="a")
        client.send("publish", channel="a", data=1)
        await settle()
        client.session.end(SHUTDOWN)
        client.send("publish", channel="a", data=2)
        client.session.on_control_frame(10)
        harness.calls.release("history")
        await settle()
        assert client.transport.reading == ["pause"]
        assert not any(call.startswith("publish") for call in harness.calls.completed)
        assert client.receive() == []

    asyncio.run(scenario())


def test_a_command_that_ends_the_session_empties_the_queue() -> None:
    """The command may have been suspended."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        client = harness.connect("ann")
        harness.tokens.add_subscription("t", "bob", "a")
        harness.calls.hold("verify")
        client.send("subscribe", channel="a", token="t")
        client.send("publish", channel="a", data=1)
        await settle()
        harness.calls.release("verify")
        await settle()
        assert client.disconnect_code == 3500
        assert not any(call.startswith("publish") for call in harness.calls.completed)

    asyncio.run(scenario())
