"""The deadlines of a session: sections 5 (stale), 7 (pings) and 8 (expiry) of the protocol reference."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from beaconfire.base.units import Seconds
from beaconfire.transports.traits import Pings, SessionTraits
from tests.unit.kit import HarnessClient, NodeHarness, settle

UNIX_S = 1_700_000_000
TIMES: dict[str, Any] = {
    "ping_interval": Seconds(20),
    "pong_timeout": Seconds(8),
    "presence_update_interval": Seconds(0),
    "stale_close_delay": Seconds(10),
    "expired_close_delay": Seconds(25),
}


def connect(random_value: float = 0.5) -> tuple[NodeHarness, HarnessClient]:
    harness = NodeHarness(**TIMES)
    harness.random_value = random_value
    return harness, harness.connect("ann")


def pings(client: HarnessClient) -> int:
    messages = client.receive()
    assert all(message == {} for message in messages)
    return len(messages)


@pytest.mark.parametrize(("random_value", "first_s"), [(0.0, 10.0), (0.5, 15.0), (0.999, 19.99)])
def test_first_ping_is_sent_between_half_and_the_whole_interval(random_value: float, first_s: float) -> None:
    """The time is random, so clients that connected together are not pinged together."""
    harness, client = connect(random_value)
    harness.advance_time(first_s - 0.02)
    assert pings(client) == 0
    harness.advance_time(0.03)
    assert pings(client) == 1


def test_pings_are_sent_every_interval_while_the_client_answers() -> None:
    """A pong keeps the session open."""
    harness, client = connect()
    harness.advance_time(15)
    for _ in range(20):
        assert pings(client) == 1
        client.send_text("{}")
        harness.advance_time(20)
    assert client.disconnect_code == 0


def test_missing_pong_ends_the_session_with_3012() -> None:
    """The session ends exactly after the timeout, however much is written to the client."""
    harness, client = connect()
    client.request("subscribe", channel="news")
    harness.advance_time(15)
    for _ in range(79):
        harness.publish("news", 1)
        harness.advance_time(0.1)
    assert client.disconnect_code == 0
    harness.advance_time(0.1)
    assert client.disconnect_code == 3012
    assert harness.recorder.limits() == ["client.pong_timeout"]


def test_other_messages_of_the_client_do_not_count_as_a_pong() -> None:
    """A client that sends but cannot receive is dead as well."""
    harness, client = connect()
    harness.advance_time(15)
    for _ in range(8):
        client.send("publish", channel="news", data=1)
        harness.advance_time(1)
    assert client.disconnect_code == 3012


def test_pong_without_a_ping_ends_the_session_with_3501() -> None:
    """A pong before the first ping and a second pong are unsolicited."""
    _, early = connect()
    early.send_text("{}")
    assert early.disconnect_code == 3501
    harness, twice = connect()
    harness.advance_time(15)
    twice.send_text("{}")
    assert twice.disconnect_code == 0
    twice.send_text("{}")
    assert twice.disconnect_code == 3501


def test_late_pong_does_not_save_the_session() -> None:
    """The deadline of the pong counts, not the next ping."""
    harness, client = connect()
    harness.advance_time(15)
    harness.advance_time(8)
    assert client.disconnect_code == 3012
    client.send_text("{}")
    assert client.transport.closed == (3012, "no pong")


def test_pings_can_be_switched_off() -> None:
    """No ping is sent, no pong is expected, and the connect result has neither."""
    harness = NodeHarness(**{**TIMES, "ping_interval": Seconds(0)})
    client = harness.open_session()
    result = client.request("connect")
    assert "ping" not in result
    assert "pong" not in result
    harness.advance_time(1000)
    assert client.receive() == []
    assert client.disconnect_code == 0


@pytest.mark.parametrize(("interval_s", "ping_s"), [(25.0, 25), (0.5, 1), (1.5, 2)])
def test_connect_result_has_the_interval_in_whole_seconds(interval_s: float, ping_s: int) -> None:
    """The interval is rounded up: with 0 the client would expect no pings, and would not answer them."""
    harness = NodeHarness(**{**TIMES, "ping_interval": Seconds(interval_s), "pong_timeout": Seconds(0.2)})
    result = harness.open_session().request("connect")
    assert (result["ping"], result["pong"]) == (ping_s, True)


def connect_with_transport_pings() -> tuple[NodeHarness, HarnessClient]:
    """A client that asked for WebSocket pings in its URL."""
    harness = NodeHarness(**TIMES)
    client = harness.open_session(SessionTraits(Pings.TRANSPORT))
    result = client.request("connect")
    assert "ping" not in result
    assert "pong" not in result
    client.receive()
    return harness, client


def test_transport_pings_replace_pings_of_the_protocol() -> None:
    """No ping of the protocol is sent. Unsolicited pongs are allowed (RFC 6455), and one pong is enough."""
    harness, client = connect_with_transport_pings()
    client.session.on_transport_pong()
    harness.advance_time(15)
    assert client.transport.pings == 1
    client.session.on_transport_pong()
    client.session.on_transport_pong()
    harness.advance_time(20)
    assert client.receive() == []
    assert client.transport.pings == 2
    harness.advance_time(8)
    assert client.disconnect_code == 3012


def test_pong_of_the_protocol_is_refused_with_transport_pings() -> None:
    """An empty command is invalid then, and does not answer a ping."""
    harness, client = connect_with_transport_pings()
    harness.advance_time(15)
    client.send_text("{}")
    assert client.disconnect_code == 3501


def test_client_that_does_not_connect_in_time_is_disconnected_with_3502() -> None:
    """No ping is sent before."""
    harness = NodeHarness(**TIMES)
    client = harness.open_session()
    harness.advance_time(9.5)
    assert client.disconnect_code == 0
    assert client.receive() == []
    harness.advance_time(0.5)
    assert client.disconnect_code == 3502
    assert harness.recorder.limits() == ["client.stale_close_delay"]


def test_failed_connect_does_not_remove_the_connect_deadline() -> None:
    """The connection is useless then, and ends at the deadline (section 5, rule 5)."""
    harness = NodeHarness(**TIMES)
    harness.calls.fail_next("verify", RuntimeError("broken"))
    harness.recorder.expects_errors = True
    client = harness.open_session()
    assert client.request_code("connect", token="x") == 100
    harness.advance_time(10)
    assert client.disconnect_code == 3502


def test_plain_clients_have_a_connect_deadline_without_a_lobby() -> None:
    """In a lobby a client may only listen, and is pinged from the start."""
    harness = NodeHarness(**TIMES)
    silent, listening = harness.open_plain_session(), harness.open_plain_session(lobby="lobby")
    harness.advance_time(10)
    assert silent.disconnect_code == 3502
    harness.advance_time(5)
    assert listening.transport.pings == 1
    listening.session.on_transport_pong()
    harness.advance_time(20)
    assert (listening.disconnect_code, listening.transport.pings) == (0, 2)
    harness.advance_time(8)
    assert listening.disconnect_code == 3012


def test_expired_connection_ends_with_3005_after_the_extra_time() -> None:
    """The client had time to refresh."""
    harness = NodeHarness(**TIMES)
    client = harness.connect("ann", expire_at_unix_s=UNIX_S + 5.0, client_refresh=True)
    for _ in range(58):
        harness.advance_time(0.5)
        if pings(client):
            client.send_text("{}")
    assert client.disconnect_code == 0
    harness.advance_time(1)
    assert client.disconnect_code == 3005


def test_an_ended_session_has_no_timer() -> None:
    """A refresh that waits for the keys when the connection ends sets no timer either."""

    async def scenario() -> None:
        harness = NodeHarness(**TIMES)
        client = harness.connect("ann", expire_at_unix_s=UNIX_S + 100.0, client_refresh=True)
        harness.calls.hold("verify")
        client.send("refresh", token="ann")
        client.drop_connection()
        harness.calls.release("verify")
        await settle()
        harness.advance_time(200)
        assert len(harness.timers) == 0
        assert harness.recorder.limits() == []

    asyncio.run(scenario())


def test_no_deadline_can_be_set_after_the_end() -> None:
    """A command that continues after the end of its session sets no timer."""
    harness, client = connect()
    client.drop_connection()
    client.session.keepalive.expire_at(harness.clock.now_s() + 5)
    client.session.keepalive.upkeep_by(harness.clock.now_s() + 5)
    client.session.keepalive.connected()
    harness.advance_time(1000, step_s=5)
    assert len(harness.timers) == 0
    assert client.receive() == []


def test_session_has_one_timer_for_all_deadlines() -> None:
    """The number of pings does not matter."""
    harness, client = connect()
    harness.advance_time(15)
    for _ in range(10):
        client.send_text("{}")
        harness.advance_time(20)
    assert len(harness.timers) <= 2, "the timer that is set, and one that may be cancelled"
    client.drop_connection()
    harness.advance_time(30)
    assert len(harness.timers) == 0


def test_ended_session_is_freed_by_reference_counting() -> None:
    """Otherwise many sessions that end together would make a long pause of the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        harness, client = connect()
        client.request("subscribe", channel="news")
        session = weakref.ref(client.session)
        client.drop_connection()
        harness.run_scheduled()
        del client
        assert session() is None
    finally:
        gc.enable()
