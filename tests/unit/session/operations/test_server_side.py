"""Server-side subscriptions of a new connection: section 6 of the protocol reference."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import Raw, structs

from beaconfire.base.errors import PERMISSION_DENIED, CommandError
from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.delivery.subscription import Subscription
from beaconfire.model.grants import SubscriptionClaims, SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.requests import SubscriptionRequest
from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import ConnectionAttempt, Via
from beaconfire.policy.tokens import TokenExpired, TokenUnverifiable
from tests.unit.kit import OPEN, RECOVERABLE, NodeHarness, run, settle
from tests.unit.session.operations.support import OPEN_TO_ANONYMOUS, UNIX_S, connect_with, grants_for

LISTED = ChannelOptions(allow_user_limited_channels=True)


def subs(harness: NodeHarness, identity: Identity, **request: Any) -> dict[str, Any]:
    """The subscriptions in the result of a connect with this identity."""
    harness.tokens.connections.known["t"] = identity
    found: dict[str, Any] = harness.open_session().request("connect", token="t", **request).get("subs", {})
    return found


def test_channels_of_the_token_are_subscribed() -> None:
    """The namespace need not allow it, and the channel may be private. The result has the data of the grant."""
    grants = {"$secret": SubscriptionGrant(data=Raw(b'{"a":1}')), "news": SubscriptionGrant()}
    harness = NodeHarness(ChannelOptions())
    assert subs(harness, Identity(user="ann", channels=grants)) == {"$secret": {"data": {"a": 1}}, "news": {}}


def test_server_side_subscriptions_receive_publications_after_the_reply() -> None:
    """They behave like client-side subscriptions."""
    harness = NodeHarness(ChannelOptions())
    client = harness.connect("ann", channels=grants_for("news"))
    harness.publish("news", "x")
    assert client.receive_pushes() == [{"channel": "news", "pub": {"data": "x"}}]


def test_personal_channel_is_subscribed_for_named_users() -> None:
    """The personal channel is in the configured namespace. Anonymous users have none."""
    on = NodeHarness(user_personal_channel=True)
    assert subs(on, Identity(user="42")) == {"#42": {}}
    assert subs(on, Identity()) == {}
    assert subs(NodeHarness(), Identity(user="42")) == {}
    spaced = NodeHarness(namespaces={"own": OPEN}, user_personal_channel=True, user_personal_channel_namespace="own")
    assert subs(spaced, Identity(user="42")) == {"own:#42": {}}


def test_grant_of_the_token_counts_for_the_personal_channel() -> None:
    """It is not replaced by an empty grant."""
    harness = NodeHarness(user_personal_channel=True)
    grants = {"#42": SubscriptionGrant(data=Raw(b"1"))}
    assert subs(harness, Identity(user="42", channels=grants)) == {"#42": {"data": 1}}


def test_entry_in_connect_subs_does_not_change_the_grant() -> None:
    """The entry holds only the client's position."""
    grants = {"news": SubscriptionGrant(data=Raw(b"1"))}
    assert subs(NodeHarness(OPEN), Identity(user="ann", channels=grants), subs={"news": {}}) == {"news": {"data": 1}}


@pytest.mark.parametrize(
    ("channel", "user", "options", "is_subscribed"),
    [
        ("news", "ann", OPEN, True),
        ("news", "", OPEN, False),
        ("news", "", OPEN_TO_ANONYMOUS, True),
        ("news", "ann", ChannelOptions(), False),
        ("$news", "ann", OPEN, False),
        ("naïve", "ann", OPEN, False),
        ("", "ann", OPEN, False),
        ("x" * 256, "ann", OPEN, False),
        ("x#ann,bob", "ann", LISTED, True),
        ("x#bob", "ann", LISTED, False),
        ("$x#ann", "ann", LISTED, False),
    ],
)
def test_connect_subs_may_name_permitted_channels(
    channel: str, user: str, options: ChannelOptions, is_subscribed: bool
) -> None:
    """Other channels are left out without an error (section 6)."""
    found = subs(NodeHarness(options), Identity(user=user), subs={channel: {}})
    assert set(found) == ({channel} if is_subscribed else set())


def test_insecure_mode_permits_all_but_private_channels_in_connect_subs() -> None:
    """The rule is the same as for subscribe."""
    found = subs(NodeHarness(ChannelOptions(), insecure=True), Identity(), subs={"news": {}, "$secret": {}})
    assert set(found) == {"news"}


@pytest.mark.parametrize("channel", ["nowhere:x", "$nowhere:x"])
def test_unknown_namespace_in_connect_ends_the_session_with_3501(channel: str) -> None:
    """In connect.subs and in the token: without the channel the client would miss something that it relies on."""
    assert connect_with(NodeHarness(), Identity(user="ann"), subs={channel: {}})[1] == 3501
    assert connect_with(NodeHarness(), Identity(user="ann", channels=grants_for(channel)))[1] == 3501


def test_too_many_server_side_channels_end_the_session_with_3505() -> None:
    """Channels of the token, the personal channel and connect.subs count together. The limit is exact."""
    harness = NodeHarness(channel_limit=3, user_personal_channel=True)
    identity = Identity(user="ann", channels=grants_for("a"))
    assert connect_with(harness, identity, subs={"b": {}})[1] == 0
    assert connect_with(harness, identity, subs={"a": {}, "b": {}, "#ann": {}})[1] == 0
    client, outcome = connect_with(harness, identity, subs={"b": {}, "c": {}})
    assert outcome == 3505
    assert harness.recorder.limits() == ["client.channel_limit"]
    assert client.session.subscriptions == {}


def test_server_side_subscriptions_recover() -> None:
    """The position is in connect.subs (section 6, a)."""
    harness = NodeHarness(RECOVERABLE)
    harness.publish("news", 1, 2, 3)
    identity = Identity(user="ann", channels=grants_for("news"))
    found = subs(harness, identity, subs={"news": {"recover": True, "offset": 1, "epoch": "epoch1"}})
    assert found["news"] == {
        "recoverable": True,
        "positioned": True,
        "was_recovering": True,
        "recovered": True,
        "epoch": "epoch1",
        "offset": 1,
        "publications": [{"data": 2, "offset": 2}, {"data": 3, "offset": 3}],
    }
    lost = subs(harness, identity, subs={"news": {"recover": True, "offset": 1, "epoch": "_"}})
    assert lost["news"] == {
        "recoverable": True,
        "positioned": True,
        "was_recovering": True,
        "epoch": "epoch1",
        "offset": 3,
    }


def test_other_fields_of_connect_subs_are_ignored() -> None:
    """Only the position counts, and a token if nothing is granted."""
    options = ChannelOptions(join_leave=True, presence=True, allow_presence_for_client=True, history_size=5)
    entry = {"positioned": True, "recoverable": True, "join_leave": True, "token": "x", "type": 7, "delta": "x"}
    assert subs(NodeHarness(options), Identity(user="ann", channels=grants_for("news")), subs={"news": entry}) == {
        "news": {}
    }


@pytest.mark.parametrize(
    "options", [ChannelOptions(allow_recovery=True), ChannelOptions(allow_history_for_client=True)]
)
def test_server_side_subscription_is_recoverable_on_request(options: ChannelOptions) -> None:
    """With `recoverable`, or with a position, which only a client with a recoverable subscription has."""
    harness = NodeHarness(structs.replace(options, history_size=5, history_ttl=Seconds(60)))
    harness.publish("news", 1, 2)
    identity = Identity(user="ann", channels=grants_for("news"))
    assert subs(harness, identity, subs={"news": {}}) == {"news": {}}
    assert subs(harness, identity, subs={"news": {"recoverable": True}})["news"]["recoverable"] is True
    back = subs(harness, identity, subs={"news": {"recover": True, "offset": 1, "epoch": "epoch1"}})["news"]
    assert (back["recovered"], back["publications"]) == (True, [{"data": 2, "offset": 2}])


def test_subscription_token_in_connect_subs_permits_the_channel() -> None:
    """The channel may be private.

    The subscription has the data and expiry of the token, and recovers from the position of the entry.
    """
    harness = NodeHarness(RECOVERABLE)
    harness.publish("$vault", 1, 2)
    grant: dict[str, Any] = {"data": Raw(b'"d"'), "expire_at_unix_s": UNIX_S + 60, "client_refresh": True}
    harness.tokens.add_subscription("v", "ann", "$vault", **grant)
    entry = {"token": "v", "recover": True, "offset": 1, "epoch": "epoch1"}
    result = subs(harness, Identity(user="ann"), subs={"$vault": entry})["$vault"]
    assert (result["data"], result["ttl"], result["recovered"]) == ("d", 60, True)
    assert result["publications"] == [{"data": 2, "offset": 2}]


def test_grant_of_the_connection_token_replaces_the_subscription_token() -> None:
    """The subscription token is not even verified."""
    harness = NodeHarness(ChannelOptions())
    harness.tokens.add_subscription("v", "ann", "news", data=Raw(b"2"))
    grants = {"news": SubscriptionGrant(data=Raw(b"1"))}
    found = subs(harness, Identity(user="ann", channels=grants), subs={"news": {"token": "v"}})
    assert found == {"news": {"data": 1}}
    assert "verify v" not in harness.calls.completed


@pytest.mark.parametrize(
    ("token", "outcome"),
    [
        (TokenExpired("exp"), 0),
        (None, 0),
        (SubscriptionClaims("ann", "news", SubscriptionGrant(expire_at_unix_s=UNIX_S)), 0),
        (SubscriptionClaims("bob", "news", SubscriptionGrant()), 3500),
        (SubscriptionClaims("ann", "other", SubscriptionGrant()), 3500),
        (SubscriptionClaims("ann", "news", SubscriptionGrant(client="elsewhere")), 3500),
    ],
)
def test_invalid_subscription_token_in_connect_subs(token: SubscriptionClaims | Exception | None, outcome: int) -> None:
    """The channel is left out, even if it needs no token.

    A token of another user, channel or client ends the session, as in subscribe.
    """
    harness = NodeHarness(OPEN)
    if token is not None:
        harness.tokens.subscriptions.known["s"] = token
    client, code = connect_with(harness, Identity(user="ann"), subs={"news": {"token": "s"}, "open": {}})
    assert code == outcome
    assert set(client.session.subscriptions) == (set() if outcome else {"open"})


@pytest.mark.parametrize(("unidirectional", "outcome"), [(False, 100), (True, 3004)])
def test_unverifiable_token_in_connect_subs_fails_the_connect_temporarily(unidirectional: bool, outcome: int) -> None:
    """A unidirectional client could not subscribe to the channel later."""
    harness = NodeHarness(OPEN)
    harness.tokens.subscriptions.known["s"] = TokenUnverifiable("no keys")
    harness.tokens.connections.known["t"] = Identity(user="ann")
    client = harness.open_unidirectional_session() if unidirectional else harness.open_session()
    request = {"token": "t", "subs": {"news": {"token": "s"}}}
    if unidirectional:
        client.send_text(json.dumps(request))
        assert client.disconnect_code == outcome
    else:
        assert client.request_code("connect", **request) == outcome
    assert harness.node.hub.statistics().subscriptions == 0


def test_channel_limit_is_checked_before_tokens_are_verified() -> None:
    """Too many entries end the session without any verification."""
    harness = NodeHarness(ChannelOptions(), channel_limit=2)
    wanted = {f"c{number}": {"token": "s"} for number in range(3)}
    assert connect_with(harness, Identity(user="ann"), subs=wanted)[1] == 3505
    assert "verify s" not in harness.calls.completed


def test_policy_decides_on_every_channel_of_connect_subs() -> None:
    """The policy is asked with and without a token. A refused channel is left out."""
    harness = NodeHarness(OPEN)
    asked: list[str] = []

    async def refuse_secrets(caller: Any, request: SubscriptionRequest, namespace: Any, via: Via, proposed: Any) -> Any:
        asked.append(request.channel)
        assert (via, proposed) == (Via.CONNECT, None)
        if request.channel == "secret":
            raise CommandError(PERMISSION_DENIED, "not for you")
        return SubscriptionGrant(data=Raw(b'"granted"'))

    harness.policy.subscribe = refuse_secrets  # type: ignore[method-assign]  # a policy of the application
    found = subs(harness, Identity(user="ann"), subs={"secret": {}, "news": {}})
    assert asked == ["secret", "news"]
    assert found == {"news": {"data": "granted"}}
    assert not harness.node.hub.has_subscribers("secret")


def test_many_tokens_are_verified_in_slices() -> None:
    """Between slices other clients have their turns, because verifying takes a tenth of a millisecond per token."""

    async def scenario() -> None:
        harness = NodeHarness(ChannelOptions())
        harness.tokens.connections.known["t"] = Identity(user="ann")
        verify = harness.tokens.verify_subscription

        async def take_a_while(token: str) -> SubscriptionClaims:
            harness.clock.advance(0.001)
            return await verify(token)

        harness.tokens.verify_subscription = take_a_while  # type: ignore[method-assign]
        wanted = {}
        for number in range(40):
            channel = f"c{number}"
            wanted[channel] = {"token": harness.tokens.add_subscription(f"s{number}", "ann", channel)}
        client = harness.open_session()
        client.send("connect", token="t", subs=wanted)
        turns = 0
        while not client.session.subscriptions:
            verified = sum(entry.startswith("verify s") for entry in harness.calls.completed)
            assert verified <= 5 * (turns + 1)
            turns += 1
            harness.run_scheduled()
            await settle()
        assert turns >= 7
        for _ in range(20):
            harness.run_scheduled()
            await settle()
        [reply] = client.receive()
        assert len(reply["connect"]["subs"]) == 40

    asyncio.run(scenario())


class Granting(NoOpinion):
    """Grants 300 channels to every client."""

    def __init__(self, *suspending: str) -> None:
        self._suspending = frozenset(suspending)

    @property
    def suspending(self) -> frozenset[str]:
        return self._suspending

    async def connect(self, attempt: ConnectionAttempt) -> Identity | None:
        return Identity(user="ann", channels={f"c{number}": SubscriptionGrant() for number in range(300)})


@pytest.mark.parametrize("suspending", [(), ("connect",)])
def test_a_small_request_may_be_granted_many_channels(suspending: tuple[str, ...]) -> None:
    """Nobody knows that before the policy is asked. So such a connect runs in one step, unless it has a task anyway."""

    async def scenario() -> None:
        harness = NodeHarness(OPEN, policy=Granting(*suspending), channel_limit=300)
        add = harness.node.memberships.add

        def take_a_while(subscription: Subscription) -> None:
            harness.clock.advance(0.0001)
            add(subscription)

        harness.node.memberships.add = take_a_while  # type: ignore[method-assign]
        client = harness.open_session()
        client.send("connect")
        await settle()
        assert (len(client.session.subscriptions) == 300) is not bool(suspending)
        for _ in range(20):
            await settle()
            harness.run_scheduled()
        [reply] = client.receive()
        assert len(reply["connect"]["subs"]) == 300

    asyncio.run(scenario())


def test_client_that_disconnects_during_verification_leaves_nothing_behind() -> None:
    """No subscription is made after the end."""

    async def scenario() -> None:
        harness = NodeHarness(OPEN)
        harness.tokens.connections.known["t"] = Identity(user="ann")
        harness.tokens.add_subscription("s", "ann", "news")
        client = harness.open_session()
        release_first = harness.calls.hold("verify")
        client.send("connect", token="t", subs={"news": {"token": "s"}})
        await settle()
        harness.calls.hold("verify")
        release_first()
        await settle()
        assert harness.calls.completed == ["verify t"]
        client.drop_connection()
        harness.calls.release("verify")
        await settle()
        assert harness.calls.completed == ["verify t"], "the end of the session cancels the verification"
        assert (harness.node.hub.statistics().subscriptions, len(harness.node.registry)) == (0, 0)

    asyncio.run(scenario())


def test_failed_connect_undoes_all_its_subscriptions() -> None:
    """No subscription, presence entry or registered session stays."""
    harness = NodeHarness(ChannelOptions(presence=True, join_leave=True))
    harness.recorder.expects_errors = True
    identity = Identity(user="ann", channels=grants_for("a", "b", "nowhere:c"))
    assert connect_with(harness, identity)[1] == 3501
    harness.tokens.connections.known["u"] = Identity(user="ann", channels=grants_for("a", "c"))
    harness.calls.fail_next("attach", OSError("no link"))
    second = harness.open_session()
    assert second.request_code("connect", token="u") == 100
    assert second.session.subscriptions == {}
    assert harness.node.hub.statistics().subscriptions == 0
    assert harness.present_clients("a") == set()
    assert len(harness.node.registry) == 0
    assert not any(" leave " in call for call in harness.calls.completed)


def test_publications_during_connect_are_sent_after_the_reply() -> None:
    """They are held for the first channel while the second one is attached."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        harness.tokens.connections.known["t"] = Identity(user="ann", channels=grants_for("a", "b"))
        harness.publish("a", "before")
        run(harness.node.work.attachments.attach("a"))
        harness.calls.hold("attach")
        client = harness.open_session()
        client.send("connect", token="t")
        await settle()
        harness.publish("a", "meanwhile")
        assert client.receive() == []
        harness.calls.release("attach")
        await settle()
        harness.publish("a", "after")
        reply, *pushes = client.receive()
        assert reply["connect"]["subs"]["a"]["offset"] == 1
        assert [push["push"]["pub"]["data"] for push in pushes] == ["meanwhile", "after"]

    asyncio.run(scenario())
