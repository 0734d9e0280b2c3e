"""A frame full of dear commands: other clients do not wait for all of them."""

from __future__ import annotations

import json

import pytest

from beaconfire.channels.options import ChannelOptions
from tests.fakes.clock import AdvancingClock
from tests.unit.kit import HarnessClient, NodeHarness

WITH_PRESENCE = ChannelOptions(allow_subscribe_for_client=True, presence=True, allow_presence_for_client=True)


def presence_commands(count: int, first: int = 100) -> str:
    return "\n".join(json.dumps({"id": first + n, "presence": {"channel": "news"}}) for n in range(count))


def is_reading_paused(client: HarnessClient) -> bool:
    return client.session.is_reading_paused


def test_commands_of_a_frame_are_handled_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few milliseconds of them at once, the rest on later turns, all in order; meanwhile the client is not read."""
    harness = NodeHarness(WITH_PRESENCE)
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


def test_later_frames_wait_for_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was already on its way when reading paused comes after what waits."""
    harness = NodeHarness(WITH_PRESENCE)
    client = harness.connect("ann")
    monkeypatch.setattr(harness.node._context, "clock", AdvancingClock(harness.clock, 0.0002))
    client.send_text(presence_commands(60))
    client.send_text(presence_commands(1, first=900))
    harness.run_scheduled()
    assert [message["id"] for message in client.receive()] == [*range(100, 160), 900]


def test_a_client_that_is_not_read_is_not_taken_for_dead() -> None:
    """Its pong may be waiting in the socket."""
    harness = NodeHarness(WITH_PRESENCE)
    client = harness.connect("ann")
    client.session.is_reading_paused = True
    harness.advance_time(60)
    assert client.disconnect_code == 0
    client.session.is_reading_paused = False
    harness.advance_time(60)
    assert client.disconnect_code == 3012
