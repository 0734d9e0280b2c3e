"""Sessions and subscriptions whose tokens are revoked end. What all protocols share is in the conformance suite."""

from __future__ import annotations

import asyncio

from beaconfire.base.errors import FORCE_RECONNECT
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.events import RevocationApplied
from tests.unit.kit import HarnessClient, NodeHarness, settle
from tests.unit.session.operations.pieces import new_harness, receive_all, since
from tests.unit.session.operations.support import UNIX_S


def subscriber(harness: NodeHarness, *channels: str) -> HarnessClient:
    """A client that is subscribed with subscription tokens which were issued a moment ago."""
    client = harness.connect("ann")
    for channel in channels:
        token = harness.tokens.add_subscription(channel, "ann", channel, issued_at_unix_s=UNIX_S - 1)
        client.request("subscribe", channel=channel, token=token)
    client.receive()
    return client


def applied(harness: NodeHarness) -> list[str]:
    return [event.kind for event in harness.recorder.of(RevocationApplied)]


def test_a_session_that_drains_in_time_keeps_its_connection() -> None:
    """Frames that were queued before the revocation are sent within a second. The unsubscribe push follows them."""
    harness = NodeHarness(ChannelOptions())
    client = subscriber(harness, "news")
    client.transport.writable = False
    harness.publish("news", 1)
    harness.run_scheduled()
    harness.revoke(user="ann", channel="news")
    harness.publish("news", 2)
    client.transport.writable = True
    client.session.on_writable()
    pushes = client.receive_pushes()
    assert [push["pub"]["data"] for push in pushes if "pub" in push] == [1]
    assert pushes[-1]["unsubscribe"]["code"] == 2501
    harness.advance_time(2, step_s=0.1)
    assert client.disconnect_code == 0
    assert applied(harness) == ["subscription"]


def test_a_session_that_does_not_drain_in_time_ends() -> None:
    """Within a second, with a code after which the client connects again. Nothing more is sent to the client."""
    harness = NodeHarness(ChannelOptions())
    client = subscriber(harness, "news")
    client.transport.writable = False
    harness.publish("news", 1)
    harness.run_scheduled()
    harness.revoke(user="ann", channel="news")
    harness.advance_time(0.9, step_s=0.1)
    assert client.disconnect_code == FORCE_RECONNECT.code
    client.transport.writable = True
    assert client.receive() == []
    assert applied(harness) == ["subscription", "session"]


def test_bytes_in_the_transport_count_as_queued() -> None:
    """The transport may have taken frames that the kernel has not. A session that has ended meanwhile is left alone."""
    harness = NodeHarness(ChannelOptions())
    client, gone = subscriber(harness, "news"), subscriber(harness, "news")
    client.transport.buffered_bytes = gone.transport.buffered_bytes = 10
    harness.revoke(user="ann", channel="news")
    gone.drop_connection()
    harness.advance_time(0.9, step_s=0.1)
    assert client.disconnect_code == FORCE_RECONNECT.code
    assert gone.disconnect_code == 0


def test_revoked_server_side_subscription_ends_the_session() -> None:
    """With 3006, because clients cannot renew such a subscription. Other subscriptions are not looked at any more."""
    harness = NodeHarness(ChannelOptions())
    client = harness.open_unidirectional_session()
    for channel in ("a", "b"):
        harness.tokens.add_subscription(channel, "", channel, issued_at_unix_s=UNIX_S - 1, token_id="t")
    client.send_text('{"subs": {"a": {"token": "a"}, "b": {"token": "b"}}}')
    assert set(client.session.subscriptions) == {"a", "b"}
    harness.revoke(token_id="t")
    harness.advance_time(0.5, step_s=0.1)
    assert client.disconnect_code == 3006
    assert applied(harness) == ["session"]


def test_a_recovery_in_pieces_stops() -> None:
    """Nothing of the rest is sent."""

    async def scenario() -> None:
        harness = new_harness()
        client = harness.connect("ann")
        token = harness.tokens.add_subscription("t", "ann", "news", issued_at_unix_s=UNIX_S - 1)
        client.send("subscribe", channel="news", token=token, **since())
        await settle()
        received = client.receive()
        assert client.session.recoveries is not None, "there are more pieces to come"
        harness.revoke(user="ann", channel="news")
        received += await receive_all(client)
        assert received[-1]["push"]["unsubscribe"]["code"] == 2501
        assert "pub" not in received[-2].get("push", {}), "the last piece is that of the reply"

    asyncio.run(scenario())


def test_one_walk_serves_many_token_ids() -> None:
    """The walk looks at all sessions in slices, and leaves those alone that have ended meanwhile."""
    harness = NodeHarness()
    clients = [harness.connect(f"u{number}", issued_at_unix_s=0.0, token_id=f"t{number}") for number in range(20)]
    before = len(harness.timers)
    for number in range(20):
        harness.revoke(token_id=f"t{number}")
    assert len(harness.timers) - before <= 2, "one walk, and one sweep of ended revocations"
    harness.clock.advance(0.2)
    slow_clock = harness.clock.now_s

    def now_s() -> float:
        harness.clock.advance(0.003)
        return slow_clock()

    harness.clock.now_s = now_s  # type: ignore[method-assign]
    harness.timers.run_due()
    ended = [client for client in clients if client.disconnect_code]
    assert 1 <= len(ended) < 5, "the first slice"
    left = next(client for client in clients if not client.disconnect_code)
    left.drop_connection()
    harness.run_scheduled()
    assert sorted(client.disconnect_code for client in clients) == [0] + [3005] * 19
    assert left.disconnect_code == 0
