"""Revoked tokens, in every protocol: they are refused, and what was made with them ends at once."""

from __future__ import annotations

import asyncio
from typing import Any

from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.grants import SubscriptionGrant
from tests.conformance.sessions.client import give_token
from tests.conformance.sessions.drivers import Bench, Feature, ProtocolUnderTest, with_features
from tests.conformance.sessions.neutral import Ended, Refresh, SubRefresh, Subscribe
from tests.unit.kit import OPEN, settle
from tests.unit.session.operations.support import UNIX_S

CLOSED = ChannelOptions(history_size=10, history_ttl=Seconds(300), force_recovery=True)
"""Nobody may subscribe without a token."""


def subscription_token(bench: Bench, channel: str = "news", iat: float = UNIX_S, **grant: Any) -> str:
    return bench.harness.tokens.add_subscription(f"{channel}{iat}", "ann", channel, issued_at_unix_s=iat, **grant)


@with_features()
def test_session_of_a_revoked_token_ends(protocol: ProtocolUnderTest) -> None:
    """With 3005, after which SDKs connect again and get a new token. Sessions of other tokens stay."""
    bench = Bench(protocol)
    old = bench.connect("ann", issued_at_unix_s=UNIX_S - 1)
    new = bench.connect("ann", issued_at_unix_s=UNIX_S + 1)
    other = bench.connect("bob", issued_at_unix_s=UNIX_S - 1)
    without_token = bench.connect("ann", issued_at_unix_s=None)
    bench.harness.revoke(user="ann")
    codes = [client.disconnect_code for client in (old, new, other, without_token)]
    assert codes == [3005, 0, 0, 0]


@with_features()
def test_session_of_a_revoked_token_id_ends(protocol: ProtocolUnderTest) -> None:
    """Within a second."""
    bench = Bench(protocol)
    first = bench.connect("ann", issued_at_unix_s=0, token_id="t1")
    second = bench.connect("ann", issued_at_unix_s=0, token_id="t2")
    bench.harness.revoke(token_id="t1")
    bench.harness.advance_time(0.5, step_s=0.1)
    assert [client.disconnect_code for client in (first, second)] == [3005, 0]


@with_features()
def test_revoked_token_is_refused_at_connect(protocol: ProtocolUnderTest) -> None:
    """With error 109 (a unidirectional client: 3005), until the client has a token that was issued later."""
    bench = Bench(protocol)
    bench.harness.revoke(user="ann")
    token = give_token(bench.harness, "ann", issued_at_unix_s=UNIX_S)
    client = bench.open()
    expected = 109 if Feature.COMMANDS in protocol.features else 3005
    assert client.connect_code(token) == expected
    bench.connect("ann", issued_at_unix_s=UNIX_S + 1)


@with_features()
def test_nothing_that_is_queued_for_a_revoked_session_is_sent(protocol: ProtocolUnderTest) -> None:
    """Neither what waits for a slow client, nor what was published in this turn of the event loop."""
    bench = Bench(protocol)
    slow = bench.connect("ann", "news", issued_at_unix_s=UNIX_S)
    quick = bench.connect("ann", "news", issued_at_unix_s=UNIX_S)
    slow.transport.writable = False
    bench.harness.publish("news", "early")
    bench.harness.run_scheduled()
    slow.transport.writable = True
    assert quick.publications() == ["early"]
    bench.harness.publish("news", "late")
    bench.harness.revoke(user="ann")
    bench.harness.publish("news", "late")
    bench.harness.run_scheduled()
    sent = [b"".join(client.transport.writes) for client in (slow, quick)]
    assert [(b"early" in data, b"late" in data) for data in sent] == [(False, False), (True, False)]
    assert [client.disconnect_code for client in (slow, quick)] == [3005, 3005]


@with_features(Feature.COMMANDS)
def test_subscription_of_a_revoked_token_ends(protocol: ProtocolUnderTest) -> None:
    """With 2501, after which SDKs get a new subscription token. What was published before is not delivered."""
    bench = Bench(protocol, CLOSED)
    client = bench.connect("ann", issued_at_unix_s=UNIX_S)
    client.subscribe("news", token=subscription_token(bench))
    client.subscribe("sport", token=subscription_token(bench, "sport"))
    client.receive()
    bench.harness.publish("news", 1)
    bench.harness.revoke(user="ann", channel="news")
    bench.harness.publish("news", 2)
    assert client.receive() == [Ended("news", 2501)]
    bench.harness.publish("sport", 3)
    assert client.publications() == [3]
    assert client.ask_code(Subscribe("news", token=subscription_token(bench))) == 109
    client.subscribe("news", token=subscription_token(bench, iat=UNIX_S + 1))


@with_features(Feature.COMMANDS)
def test_subscription_token_can_be_revoked_by_its_id(protocol: ProtocolUnderTest) -> None:
    """The connection stays."""
    bench = Bench(protocol, CLOSED)
    client = bench.connect("ann", issued_at_unix_s=UNIX_S)
    client.subscribe("news", token=subscription_token(bench, token_id="s1"))
    client.receive()
    bench.harness.revoke(token_id="s1")
    bench.harness.advance_time(0.5, step_s=0.1)
    assert client.receive() == [Ended("news", 2501)]
    assert client.disconnect_code == 0


@with_features(Feature.COMMANDS)
def test_token_that_is_revoked_while_the_client_subscribes_is_refused(protocol: ProtocolUnderTest) -> None:
    """With 109, whatever the subscription waits for."""

    async def scenario(call: str) -> None:
        bench = Bench(protocol, CLOSED)
        client = bench.connect("ann", issued_at_unix_s=None)
        token = subscription_token(bench)
        bench.harness.calls.hold(call)
        client.send(Subscribe("news", token=token))
        await settle()
        await bench.harness.node.work.revocation_stream.revoke(bench.harness.revocation(user="ann", channel="news"))
        bench.harness.calls.release(call)
        await settle()
        [reply] = client.receive()
        assert getattr(reply, "error", None) == 109, reply
        bench.harness.publish("news", 1)
        assert client.receive() == []

    for call in ("verify", "attach", "history"):
        asyncio.run(scenario(call))


@with_features(Feature.COMMANDS)
def test_revoked_token_is_refused_at_a_refresh(protocol: ProtocolUnderTest) -> None:
    """With 3005, as an expired one: SDKs do not get another token after an error reply to a refresh."""
    bench = Bench(protocol)
    client = bench.connect("ann", expire_at_unix_s=UNIX_S + 60, client_refresh=True, issued_at_unix_s=None)
    bench.harness.revoke(user="ann")
    token = give_token(bench.harness, "ann", expire_at_unix_s=UNIX_S + 90, client_refresh=True, issued_at_unix_s=UNIX_S)
    assert client.ask_code(Refresh(token)) == 3005


@with_features(Feature.COMMANDS)
def test_revoked_token_is_refused_at_a_subscription_refresh(protocol: ProtocolUnderTest) -> None:
    """With 3006, as an expired one."""
    bench = Bench(protocol, CLOSED)
    client = bench.connect("ann", issued_at_unix_s=None)
    lasting: dict[str, Any] = {"expire_at_unix_s": UNIX_S + 60, "client_refresh": True}
    client.subscribe("news", token=subscription_token(bench, iat=UNIX_S + 1, **lasting))
    bench.harness.revoke(user="ann", channel="news")
    assert client.ask_code(SubRefresh("news", subscription_token(bench, **lasting))) == 3006


@with_features()
def test_connection_token_that_grants_a_revoked_channel_is_void(protocol: ProtocolUnderTest) -> None:
    """Otherwise the client would be subscribed again when it connects again."""
    bench = Bench(protocol, OPEN)
    granted = bench.connect("ann", issued_at_unix_s=UNIX_S, channels={"news": SubscriptionGrant()})
    other = bench.connect("ann", issued_at_unix_s=UNIX_S, channels={"sport": SubscriptionGrant()})
    bench.harness.revoke(user="ann", channel="news")
    assert [client.disconnect_code for client in (granted, other)] == [3005, 0]
