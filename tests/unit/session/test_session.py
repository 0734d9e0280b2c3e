"""One session: its limits, its messages to the client, and its end."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.errors import FORCE_RECONNECT, SHUTDOWN, WRITE_ERROR
from beaconfire.base.units import Size
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.events import SessionEnded
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.pushes import MessagePush, SubscribePush
from beaconfire.session.session import SessionPhase
from tests.unit.kit import OPEN, RECOVERABLE, HarnessClient, NodeHarness
from tests.unit.session.operations.support import lose_history, with_history

# --- limits


@pytest.mark.parametrize(("count", "code"), [(10, 0), (11, 3013)])
def test_more_messages_per_second_than_the_limit_end_the_session_with_3013(count: int, code: int) -> None:
    """The limit is exact, and each command of a frame counts."""
    harness = NodeHarness(message_rate_limit=10)
    client = harness.connect("ann")
    harness.clock.advance(2)
    client.send_text("\n".join(f'{{"id":{number},"unsubscribe":{{"channel":"a"}}}}' for number in range(1, count + 1)))
    assert client.disconnect_code == code
    assert len(client.receive()) == (0 if code else count), "no command of the frame over the limit is answered"
    assert harness.recorder.limits() == (["client.message_rate_limit"] if code else [])


def test_more_bytes_per_second_than_the_limit_end_the_session_with_3013() -> None:
    """Every byte of a message counts."""
    harness = NodeHarness(byte_rate_limit=Size(100))
    client = harness.connect("ann")
    client.send_text('{"id":9,"publish":{"channel":"a","data":"' + "x" * 100 + '"}}')
    assert client.disconnect_code == 3013
    assert harness.recorder.limits() == ["client.byte_rate_limit"]


def test_control_frames_count_as_messages() -> None:
    """Pings, pongs and fragments count against the same rate."""
    harness = NodeHarness(message_rate_limit=10)
    client = harness.connect("ann")
    harness.clock.advance(2)
    for _ in range(10):
        client.session.on_control_frame(0)
    assert client.disconnect_code == 0
    client.session.on_control_frame(0)
    assert client.disconnect_code == 3013


def test_rate_limit_is_per_second() -> None:
    """A client below the rate is never disconnected."""
    harness = NodeHarness(message_rate_limit=10)
    client = harness.connect("ann")
    for _ in range(20):
        harness.clock.advance(1)
        for _ in range(10):
            client.session.on_control_frame(0)
    assert client.disconnect_code == 0


def test_slow_client_is_disconnected_with_3008_and_others_get_everything() -> None:
    """Its queue is dropped."""
    harness = NodeHarness(queue_max_size=Size(1000))
    slow, quick = harness.connect("ann", "news"), harness.connect("bob", "news")
    slow.transport.writable = False
    for _ in range(30):
        harness.publish("news", "x" * 50)
        harness.run_scheduled()
    assert slow.disconnect_code == 3008
    assert (slow.transport.closed, quick.disconnect_code) == ((3008, "slow"), 0)
    assert len(quick.receive()) == 30
    assert slow.session.waiting_bytes == 0
    assert harness.recorder.limits() == ["client.queue_max_size"]
    assert harness.node.hub.count("news") == 1


def test_client_that_reads_again_gets_queued_publications() -> None:
    """The publications are in order and complete, because the limit was not reached."""
    harness = NodeHarness()
    client = harness.connect("ann", "news")
    client.transport.writable = False
    harness.publish("news", 1)
    harness.run_scheduled()
    harness.publish("news", 2)
    harness.run_scheduled()
    assert harness.node.statistics().queue_bytes > 0
    client.transport.writable = True
    client.session.on_writable()
    harness.publish("news", 3)
    assert [push["pub"]["data"] for push in client.receive_pushes()] == [1, 2, 3]
    assert harness.node.statistics().queue_bytes == 0


def test_bytes_buffered_by_the_transport_count_as_queued() -> None:
    """The kernel has not taken them yet."""
    harness = NodeHarness()
    client = harness.connect("ann")
    client.transport.buffered_bytes = 70
    assert client.session.waiting_bytes == 70
    assert harness.node.statistics().queue_bytes == 70


# --- messages to the client


def test_replies_and_pushes_of_one_turn_are_sent_in_order() -> None:
    """Replies, pushes and publications are one write."""
    harness = NodeHarness()
    client = harness.connect("ann", "news")
    client.transport.writes.clear()
    client.session.push(MessagePush(Raw(b"1")))
    number = client.send("unsubscribe", channel="other")
    client.session.push(MessagePush(Raw(b"2")))
    harness.run_scheduled()
    assert len(client.transport.writes) == 1
    assert client.transport.writes[0].splitlines() == [
        b'{"push":{"message":{"data":1}}}',
        b'{"id":%d,"unsubscribe":{}}' % number,
        b'{"push":{"message":{"data":2}}}',
    ]


def test_push_that_is_not_json_ends_the_session_with_3506() -> None:
    """Messages that were queued before are still sent."""
    harness = NodeHarness()
    client = harness.connect("ann")
    client.session.push(MessagePush(Raw(b"1")))
    client.session.push(SubscribePush("news", data=Raw(b"\xff")))
    assert client.disconnect_code == 3506
    assert [push["message"]["data"] for push in client.receive_pushes()] == [1]


def test_messages_bytes_and_writes_are_counted() -> None:
    """Messages and bytes are counted in both directions."""
    harness = NodeHarness()
    ann, _ = harness.connect("ann", "news"), harness.connect("bob", "news")
    before = harness.node.statistics()
    text = '{"id":9,"publish":{"channel":"news","data":1}}'
    ann.send_text(text)
    harness.run_scheduled()
    after = harness.node.statistics()
    assert after.messages_in_total - before.messages_in_total == 1
    assert after.bytes_in_total - before.bytes_in_total == len(text)
    assert after.messages_out_total - before.messages_out_total == 3, "a reply and two publications"
    assert after.writes_total - before.writes_total == 2
    assert after.bytes_out_total - before.bytes_out_total == sum(
        len(write) for client in (ann, _) for write in client.transport.writes[-1:]
    )


# --- the end


def test_end_releases_everything() -> None:
    """No subscription, registry entry or timer stays. Queued messages are sent first, then code and reason."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann", "a", "b")
    client.session.push(MessagePush(Raw(b'"final message"')))
    client.session.end(FORCE_RECONNECT, "because")
    assert client.transport.closed == (3011, "force reconnect")
    assert client.transport.writes[-1] == b'{"push":{"message":{"data":"final message"}}}\n'
    assert client.session.subscriptions == {}
    assert client.session.phase is SessionPhase.ENDED
    assert len(harness.node.registry) == 0
    assert harness.node.hub.statistics().subscriptions == 0
    assert harness.node.registry.open == set()
    assert harness.node.registry.closing == {client.session}
    client.session.on_closed()
    assert harness.node.registry.closing == set()
    harness.advance_time(60)
    assert len(harness.timers) == 0
    assert harness.attached_channels() == 0


def test_session_ends_once() -> None:
    """Further calls of `end` and `on_closed` change nothing, and emit no event."""
    harness = NodeHarness()
    client = harness.connect("ann")
    client.session.end(SHUTDOWN)
    client.session.end(FORCE_RECONNECT)
    client.session.on_closed()
    client.session.on_closed()
    client.session.end(FORCE_RECONNECT)
    assert client.transport.closed == (3001, "shutdown")
    assert [event.code for event in harness.recorder.of(SessionEnded)] == [3001]
    assert harness.node.registry.closing == set()


def test_end_of_a_session_is_reported() -> None:
    """The event has client, user, code, reason, detail and duration."""
    harness = NodeHarness()
    client = harness.connect("ann")
    harness.clock.advance(5)
    client.session.end(SHUTDOWN, "a detail")
    assert harness.recorder.of(SessionEnded) == [
        SessionEnded(client.id, "ann", "test", "centrifuge-json", 3001, "shutdown", "a detail", 5.0)
    ]


@pytest.mark.parametrize(("arguments", "code"), [((), 3000), ((WRITE_ERROR,), 3009)])
def test_transport_may_end_the_session(arguments: tuple[Any, ...], code: int) -> None:
    """A lost connection has code 3000, unless the transport gives another one. No message is sent."""
    harness = NodeHarness()
    client = harness.connect("ann", "news")
    client.session.on_closed(*arguments)
    assert client.transport.closed is None
    assert [event.code for event in harness.recorder.of(SessionEnded)] == [code]
    assert harness.node.hub.statistics().subscriptions == 0


def test_transport_may_call_on_closed_from_close() -> None:
    """The session ends once."""
    harness = NodeHarness()
    client = harness.connect("ann")
    client.transport.when_closed = client.drop_connection
    client.session.end(SHUTDOWN)
    assert harness.node.registry.closing == set()
    assert [event.code for event in harness.recorder.of(SessionEnded)] == [3001]


def test_pending_publications_are_sent_before_the_end() -> None:
    """The session that ends and the other subscribers get them."""
    harness = NodeHarness()
    client, other = harness.connect("ann", "news"), harness.connect("bob", "news")
    harness.publish("news", 1)
    client.session.end(SHUTDOWN)
    assert [push["pub"]["data"] for push in client.receive_pushes()] == [1]
    assert [push["pub"]["data"] for push in other.receive_pushes()] == [1]


def test_all_sessions_of_a_channel_may_end_in_one_batch() -> None:
    """Sessions that end during fan-out, with their leaves, do no harm."""
    options = ChannelOptions(
        allow_subscribe_for_client=True, presence=True, join_leave=True, force_push_join_leave=True
    )
    harness = NodeHarness(options)
    clients: list[HarnessClient] = [harness.connect(f"user{number}", "news") for number in range(20)]
    harness.publish("news", Raw(b"\xff"))
    harness.run_scheduled()
    assert [client.disconnect_code for client in clients] == [3506] * 20
    assert harness.present_clients("news") == set()
    assert harness.node.hub.statistics().channels == 0
    harness.run_scheduled()


def test_many_connections_leave_nothing_behind() -> None:
    """No session, subscription, timer or attachment stays."""
    harness = NodeHarness(OPEN)
    for _ in range(300):
        client = harness.connect("ann", "a", "b")
        client.drop_connection()
    harness.advance_time(60, step_s=5)
    assert harness.node.registry.open == set()
    assert (len(harness.timers), harness.attached_channels(), len(harness.node.registry)) == (0, 0, 0)
    assert len(harness.node.background) == 0


# --- gaps


def test_gap_ends_a_client_side_subscription_with_2500() -> None:
    """The client subscribes again with its position, and learns that publications are missing."""
    harness = NodeHarness(with_history())
    client = harness.connect("ann", "news")
    lose_history(harness)
    assert client.receive_pushes() == [
        {"channel": "news", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}
    ]
    assert client.disconnect_code == 0
    result = client.request("subscribe", channel="news", recover=True, offset=0, epoch="epoch1")
    assert "recovered" not in result
    assert "publications" not in result


def test_gap_of_a_server_side_subscription_ends_the_session_with_3010() -> None:
    """The client did not subscribe, so it must connect again."""
    harness = NodeHarness(with_history())
    client = harness.connect("ann", channels={"news": SubscriptionGrant()})
    other = harness.connect("bob", "other")
    lose_history(harness)
    harness.run_scheduled()
    assert client.disconnect_code == 3010
    assert other.disconnect_code == 0
