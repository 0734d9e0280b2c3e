"""A frame full of dear commands: other clients do not wait for all of them."""

from __future__ import annotations

import json

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.channels.options import ChannelOptions
from tests.unit.kit import Client, World

OPEN = ChannelOptions(allow_subscribe_for_client=True, presence=True, allow_presence_for_client=True)


class DearTime:
    """Every look at the clock takes a fifth of a millisecond, as if much was done in between."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock

    def now_s(self) -> float:
        self._clock.advance(0.0002)
        return self._clock.now_s()

    def unix_s(self) -> float:
        return self._clock.unix_s()


def many(count: int, first: int = 100) -> str:
    return "\n".join(json.dumps({"id": first + n, "presence": {"channel": "news"}}) for n in range(count))


def held_back(client: Client) -> bool:
    return client.session.is_reading_paused


def test_commands_of_a_frame_are_handled_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few milliseconds of them at once, the rest on later turns, all in order; meanwhile the client is not read."""
    world = World(OPEN)
    client = world.connect("ann")
    monkeypatch.setattr(world.node._context, "clock", DearTime(world.clock))
    client.send_text(many(500))
    at_once = world.node._context.replies_total
    assert 0 < at_once < 100
    assert held_back(client)
    world.turn()
    assert [message["id"] for message in client.take()] == list(range(100, 600))
    assert not held_back(client)
    assert world.recorder.limits() == ["client.command_queue_max"]


def test_later_frames_wait_for_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was already on its way when reading paused comes after what waits."""
    world = World(OPEN)
    client = world.connect("ann")
    monkeypatch.setattr(world.node._context, "clock", DearTime(world.clock))
    client.send_text(many(60))
    client.send_text(many(1, first=900))
    world.turn()
    assert [message["id"] for message in client.take()] == [*range(100, 160), 900]


def test_a_client_that_is_not_read_is_not_taken_for_dead() -> None:
    """Its pong may be waiting in the socket."""
    world = World(OPEN)
    client = world.connect("ann")
    client.session.is_reading_paused = True
    world.pass_time(60)
    assert client.ended == 0
    client.session.is_reading_paused = False
    world.pass_time(60)
    assert client.ended == 3012
