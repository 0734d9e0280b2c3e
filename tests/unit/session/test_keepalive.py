"""The deadlines of a session: sections 5 (stale), 7 (pings) and 8 (expiry) of the protocol reference."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from beaconfire.base.units import Seconds
from beaconfire.transports.traits import SessionTraits
from tests.unit.kit import Client, World, settle

UNIX_S = 1_700_000_000
TIMES: dict[str, Any] = {
    "ping_interval": Seconds(20),
    "pong_timeout": Seconds(8),
    "presence_update_interval": Seconds(0),
    "stale_close_delay": Seconds(10),
    "expired_close_delay": Seconds(25),
}


def make(chance: float = 0.5) -> tuple[World, Client]:
    world = World(**TIMES)
    world.chance = chance
    return world, world.connect("ann")


def pings(client: Client) -> int:
    messages = client.take()
    assert all(message == {} for message in messages)
    return len(messages)


@pytest.mark.parametrize(("chance", "first_s"), [(0.0, 10.0), (0.5, 15.0), (0.999, 19.99)])
def test_the_first_ping_comes_between_half_and_the_whole_interval(chance: float, first_s: float) -> None:
    """At a random moment, so that clients that connected together are not pinged together."""
    world, client = make(chance)
    world.pass_time(first_s - 0.02)
    assert pings(client) == 0
    world.pass_time(0.03)
    assert pings(client) == 1


def test_pings_come_every_interval_and_a_pong_keeps_the_session() -> None:
    """For as long as the client answers."""
    world, client = make()
    world.pass_time(15)
    for _ in range(20):
        assert pings(client) == 1
        client.send_text("{}")
        world.pass_time(20)
    assert client.ended == 0


def test_no_pong_in_time_ends_the_session() -> None:
    """With 3012, when the timeout is over and not before, however much is written to the client."""
    world, client = make()
    client.ask("subscribe", channel="news")
    world.pass_time(15)
    for _ in range(79):
        world.publish("news", 1)
        world.pass_time(0.1)
    assert client.ended == 0
    world.pass_time(0.1)
    assert client.ended == 3012
    assert world.recorder.limits() == ["client.pong_timeout"]


def test_other_messages_of_the_client_are_no_pong() -> None:
    """Only the pong counts: a client that sends and cannot receive is dead too."""
    world, client = make()
    world.pass_time(15)
    for _ in range(8):
        client.send("publish", channel="news", data=1)
        world.pass_time(1)
    assert client.ended == 3012


def test_a_pong_nobody_asked_for_ends_the_session() -> None:
    """Before the first ping, and a second one after it: 3501."""
    _, early = make()
    early.send_text("{}")
    assert early.ended == 3501
    world, twice = make()
    world.pass_time(15)
    twice.send_text("{}")
    assert twice.ended == 0
    twice.send_text("{}")
    assert twice.ended == 3501


def test_a_late_pong_ends_with_no_pong() -> None:
    """The deadline counts, not the next ping."""
    world, client = make()
    world.pass_time(15)
    world.pass_time(8)
    assert client.ended == 3012
    client.send_text("{}")
    assert client.transport.closed == (3012, "no pong")


def test_pings_can_be_switched_off() -> None:
    """Then nothing is sent, nothing is awaited, and the client is told so."""
    world = World(**{**TIMES, "ping_interval": Seconds(0)})
    client = world.open_session()
    result = client.ask("connect")
    assert "ping" not in result
    assert "pong" not in result
    world.pass_time(1000)
    assert client.take() == []
    assert client.ended == 0


@pytest.mark.parametrize(("interval_s", "told"), [(25.0, 25), (0.5, 1), (1.5, 2)])
def test_the_client_is_told_the_interval_in_whole_seconds(interval_s: float, told: int) -> None:
    """Rounded up: zero would tell it that there are none, and then it would not answer."""
    world = World(**{**TIMES, "ping_interval": Seconds(interval_s), "pong_timeout": Seconds(0.2)})
    result = world.open_session().ask("connect")
    assert (result["ping"], result["pong"]) == (told, True)


def frames_only() -> tuple[World, Client]:
    """A native client that asked for WebSocket pings in its URL."""
    world = World(**TIMES)
    client = world.open_session(SessionTraits(app_pings=False))
    result = client.ask("connect")
    assert "ping" not in result
    assert "pong" not in result
    client.take()
    return world, client


def test_a_client_may_have_the_transports_pings_instead() -> None:
    """Nothing of the protocol is sent, any number of pongs is fine (RFC 6455 allows them unasked), and one counts."""
    world, client = frames_only()
    client.session.on_transport_pong()
    world.pass_time(15)
    assert client.transport.pings == 1
    client.session.on_transport_pong()
    client.session.on_transport_pong()
    world.pass_time(20)
    assert client.take() == []
    assert client.transport.pings == 2
    world.pass_time(8)
    assert client.ended == 3012


def test_a_client_with_the_transports_pings_must_not_pong_in_the_protocol() -> None:
    """It was never asked to: an empty command is garbage there, and answers no ping."""
    world, client = frames_only()
    world.pass_time(15)
    client.send_text("{}")
    assert client.ended == 3501


def test_who_does_not_connect_in_time_is_stale() -> None:
    """With 3502 after the delay, and no ping before."""
    world = World(**TIMES)
    client = world.open_session()
    world.pass_time(9.5)
    assert client.ended == 0
    assert client.take() == []
    world.pass_time(0.5)
    assert client.ended == 3502
    assert world.recorder.limits() == ["client.stale_close_delay"]


def test_a_failed_connect_does_not_stop_the_stale_deadline() -> None:
    """The connection is useless, and goes when it is over (section 5, rule 5)."""
    world = World(**TIMES)
    world.stops.fail_next("verify", RuntimeError("broken"))
    world.recorder.expects_errors = True
    client = world.open_session()
    assert client.outcome("connect", token="x") == 100
    world.pass_time(10)
    assert client.ended == 3502


def test_plain_clients_are_stale_too_unless_there_is_a_lobby() -> None:
    """In a lobby one may listen without a word; pings watch it from the start."""
    world = World(**TIMES)
    silent, listening = world.plain(), world.plain(lobby="lobby")
    world.pass_time(10)
    assert silent.ended == 3502
    world.pass_time(5)
    assert listening.transport.pings == 1
    listening.session.on_transport_pong()
    world.pass_time(20)
    assert (listening.ended, listening.transport.pings) == (0, 2)
    world.pass_time(8)
    assert listening.ended == 3012


def test_an_expired_connection_ends_after_its_grace() -> None:
    """With 3005: the client had time to refresh."""
    world = World(**TIMES)
    client = world.connect("ann", expire_at_unix_s=UNIX_S + 5.0, client_refresh=True)
    for _ in range(58):
        world.pass_time(0.5)
        if pings(client):
            client.send_text("{}")
    assert client.ended == 0
    world.pass_time(1)
    assert client.ended == 3005


def test_an_ended_session_has_no_timer() -> None:
    """Not of a refresh either that was waiting for keys when the client went away."""

    async def scenario() -> None:
        world = World(**TIMES)
        client = world.connect("ann", expire_at_unix_s=UNIX_S + 100.0, client_refresh=True)
        world.stops.hold("verify")
        client.send("refresh", token="ann")
        client.cut()
        world.stops.release("verify")
        await settle()
        world.pass_time(200)
        assert len(world.timers) == 0
        assert world.recorder.limits() == []

    asyncio.run(scenario())


def test_no_deadline_can_be_set_after_the_end() -> None:
    """Whoever goes on after waiting for something does not bring a dead session back to life."""
    world, client = make()
    client.cut()
    client.session.keepalive.expire_at(world.clock.now_s() + 5)
    client.session.keepalive.upkeep_by(world.clock.now_s() + 5)
    client.session.keepalive.connected()
    world.pass_time(1000, step_s=5)
    assert len(world.timers) == 0
    assert client.take() == []


def test_one_timer_serves_all_deadlines() -> None:
    """An idle session keeps a single one alive, however often it is pinged."""
    world, client = make()
    world.pass_time(15)
    for _ in range(10):
        client.send_text("{}")
        world.pass_time(20)
    assert len(world.timers) <= 2, "the one that is set, and perhaps one that is cancelled"
    client.cut()
    world.pass_time(30)
    assert len(world.timers) == 0


def test_an_ended_session_is_freed_at_once() -> None:
    """No circle keeps it for the garbage collector: ten thousand that leave together would make that a long pause."""
    gc.collect()
    gc.disable()
    try:
        world, client = make()
        client.ask("subscribe", channel="news")
        session = weakref.ref(client.session)
        client.cut()
        world.turn()
        del client
        assert session() is None
    finally:
        gc.enable()
