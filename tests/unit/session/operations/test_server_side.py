"""Server-side subscriptions of a new connection: section 6 of the protocol reference."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Raw, structs

from beaconfire.base.errors import (
    PERMISSION_DENIED,
    CommandError,
)
from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.grants import SubscriptionClaims, SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.requests import SubscribeRequest
from beaconfire.policy.tokens import TokenExpired, TokenUnverifiable
from beaconfire.session.traits import SessionTraits
from tests.unit.kit import OPEN, RECOVERABLE, NodeHarness, run, settle
from tests.unit.session.operations.support import (
    OPEN_TO_ANONYMOUS,
    UNIX_S,
    connect_with,
    grants_for,
)

LISTED = ChannelOptions(allow_user_limited_channels=True)


def subs(harness: NodeHarness, identity: Identity, **request: Any) -> dict[str, Any]:
    harness.tokens.connections.known["t"] = identity
    found: dict[str, Any] = harness.open_session().request("connect", token="t", **request).get("subs", {})
    return found


def test_the_tokens_channels_are_subscribed() -> None:
    """Whatever the namespaces permit, private ones too, and with what the token says of each."""
    grants = {"$secret": SubscriptionGrant(data=Raw(b'{"a":1}')), "news": SubscriptionGrant()}
    harness = NodeHarness(ChannelOptions())
    assert subs(harness, Identity(user="ann", channels=grants)) == {"$secret": {"data": {"a": 1}}, "news": {}}


def test_publications_of_server_side_channels_come_after_the_reply() -> None:
    """From the moment of the reply on, like any other."""
    harness = NodeHarness(ChannelOptions())
    client = harness.connect("ann", channels=grants_for("news"))
    harness.publish("news", "x")
    assert client.receive_pushes() == [{"channel": "news", "pub": {"data": "x"}}]


def test_the_personal_channel() -> None:
    """Named users have it if it is switched on, in its namespace; the anonymous user never."""
    on = NodeHarness(user_personal_channel=True)
    assert subs(on, Identity(user="42")) == {"#42": {}}
    assert subs(on, Identity()) == {}
    assert subs(NodeHarness(), Identity(user="42")) == {}
    spaced = NodeHarness(namespaces={"own": OPEN}, user_personal_channel=True, user_personal_channel_namespace="own")
    assert subs(spaced, Identity(user="42")) == {"own:#42": {}}


def test_the_tokens_word_on_the_personal_channel_counts() -> None:
    """What it grants is not replaced by a bare grant."""
    harness = NodeHarness(user_personal_channel=True)
    grants = {"#42": SubscriptionGrant(data=Raw(b"1"))}
    assert subs(harness, Identity(user="42", channels=grants)) == {"#42": {"data": 1}}


def test_asking_for_a_granted_channel_changes_no_grant() -> None:
    """The entry is where the client stands in it, even where it could have it without a token."""
    grants = {"news": SubscriptionGrant(data=Raw(b"1"))}
    assert subs(NodeHarness(OPEN), Identity(user="ann", channels=grants), subs={"news": {}}) == {"news": {"data": 1}}


@pytest.mark.parametrize(
    ("channel", "user", "options", "there"),
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
def test_a_client_may_ask_for_channels_it_could_have(
    channel: str, user: str, options: ChannelOptions, there: bool
) -> None:
    """What it may not have without a token is silently skipped (section 6)."""
    found = subs(NodeHarness(options), Identity(user=user), subs={channel: {}})
    assert set(found) == ({channel} if there else set())


def test_insecure_clients_may_ask_for_any_but_private_channels() -> None:
    """As when subscribing."""
    found = subs(NodeHarness(ChannelOptions(), insecure=True), Identity(), subs={"news": {}, "$secret": {}})
    assert set(found) == {"news"}


@pytest.mark.parametrize("channel", ["nowhere:x", "$nowhere:x"])
def test_asking_for_an_unknown_namespace_ends_the_session(channel: str) -> None:
    """With 3501; so does a token that grants one, because such a client would lack what it relies on."""
    assert connect_with(NodeHarness(), Identity(user="ann"), subs={channel: {}})[1] == 3501
    assert connect_with(NodeHarness(), Identity(user="ann", channels=grants_for(channel)))[1] == 3501


def test_too_many_server_side_channels_end_the_session() -> None:
    """With 3505: token, personal and asked for count together; exactly the limit is fine."""
    harness = NodeHarness(channel_limit=3, user_personal_channel=True)
    identity = Identity(user="ann", channels=grants_for("a"))
    assert connect_with(harness, identity, subs={"b": {}})[1] == 0
    assert connect_with(harness, identity, subs={"a": {}, "b": {}, "#ann": {}})[1] == 0
    client, outcome = connect_with(harness, identity, subs={"b": {}, "c": {}})
    assert outcome == 3505
    assert harness.recorder.limits() == ["client.channel_limit"]
    assert client.session.subscriptions == {}


def test_server_side_channels_recover() -> None:
    """The entry in connect.subs is where the client stands (section 6, a)."""
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


def test_a_client_cannot_ask_its_way_to_more() -> None:
    """Of an entry in connect.subs the position counts, and a token where nothing is granted; not the rest."""
    options = ChannelOptions(join_leave=True, presence=True, allow_presence_for_client=True, history_size=5)
    wish = {"positioned": True, "recoverable": True, "join_leave": True, "token": "x", "type": 7, "delta": "x"}
    assert subs(NodeHarness(options), Identity(user="ann", channels=grants_for("news")), subs={"news": wish}) == {
        "news": {}
    }


@pytest.mark.parametrize(
    "options", [ChannelOptions(allow_recovery=True), ChannelOptions(allow_history_for_client=True)]
)
def test_recovery_may_be_asked_for_where_it_is_allowed(options: ChannelOptions) -> None:
    """In so many words, or by a position, which nobody has who was not given one."""
    harness = NodeHarness(structs.replace(options, history_size=5, history_ttl=Seconds(60)))
    harness.publish("news", 1, 2)
    identity = Identity(user="ann", channels=grants_for("news"))
    assert subs(harness, identity, subs={"news": {}}) == {"news": {}}
    assert subs(harness, identity, subs={"news": {"recoverable": True}})["news"]["recoverable"] is True
    back = subs(harness, identity, subs={"news": {"recover": True, "offset": 1, "epoch": "epoch1"}})["news"]
    assert (back["recovered"], back["publications"]) == (True, [{"data": 2, "offset": 2}])


def test_a_token_opens_a_channel_that_is_asked_for() -> None:
    """A private one too, with what the token says of it, from the position in the entry, and until the token ends."""
    harness = NodeHarness(RECOVERABLE)
    harness.publish("$vault", 1, 2)
    grant: dict[str, Any] = {"data": Raw(b'"d"'), "expire_at_unix_s": UNIX_S + 60, "client_refresh": True}
    harness.tokens.add_subscription("v", "ann", "$vault", **grant)
    wish = {"token": "v", "recover": True, "offset": 1, "epoch": "epoch1"}
    result = subs(harness, Identity(user="ann"), subs={"$vault": wish})["$vault"]
    assert (result["data"], result["ttl"], result["recovered"]) == ("d", 60, True)
    assert result["publications"] == [{"data": 2, "offset": 2}]


def test_what_the_connections_token_grants_needs_no_other() -> None:
    """Its word on a channel wins; the entry's token is not even looked at."""
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
        (SubscriptionClaims("ann", "news", "", SubscriptionGrant(expire_at_unix_s=UNIX_S)), 0),
        (SubscriptionClaims("bob", "news", "", SubscriptionGrant()), 3500),
        (SubscriptionClaims("ann", "other", "", SubscriptionGrant()), 3500),
        (SubscriptionClaims("ann", "news", "elsewhere", SubscriptionGrant()), 3500),
    ],
)
def test_a_token_that_opens_nothing(token: SubscriptionClaims | Exception | None, outcome: int) -> None:
    """The channel is left out, though it could be had without; a token that is not for this client and channel ends the
    session, as it does in subscribe."""
    harness = NodeHarness(OPEN)
    if token is not None:
        harness.tokens.subscriptions.known["s"] = token
    client, code = connect_with(harness, Identity(user="ann"), subs={"news": {"token": "s"}, "open": {}})
    assert code == outcome
    assert set(client.session.subscriptions) == (set() if outcome else {"open"})


@pytest.mark.parametrize(("unidirectional", "outcome"), [(False, 100), (True, 3004)])
def test_a_token_that_cannot_be_verified_now_is_a_reason_to_come_back(unidirectional: bool, outcome: int) -> None:
    """Whoever only listens can't ask for the channel later, and would be without it for good."""
    harness = NodeHarness(OPEN)
    harness.tokens.subscriptions.known["s"] = TokenUnverifiable("no keys")
    harness.tokens.connections.known["t"] = Identity(user="ann")
    client = harness.open_session(SessionTraits(unidirectional=unidirectional))
    assert client.request_code("connect", token="t", subs={"news": {"token": "s"}}) == outcome
    assert harness.node.hub.statistics().subscriptions == 0


def test_tokens_count_before_they_are_looked_at() -> None:
    """More entries than the client may have channels end the session, and cost no verification."""
    harness = NodeHarness(ChannelOptions(), channel_limit=2)
    wanted = {f"c{number}": {"token": "s"} for number in range(3)}
    assert connect_with(harness, Identity(user="ann"), subs=wanted)[1] == 3505
    assert "verify s" not in harness.calls.completed


def test_the_policy_decides_about_every_channel_that_is_asked_for() -> None:
    """With a token or without one: a channel that it refuses is left out, as if the client had not asked."""
    harness = NodeHarness(OPEN)
    asked: list[str] = []

    async def refuse_secrets(identity: Identity, client: str, request: SubscribeRequest, namespace: Any) -> Any:
        asked.append(request.channel)
        if request.channel == "secret":
            raise CommandError(PERMISSION_DENIED, "not for you")
        return SubscriptionGrant(data=Raw(b'"welcome"'))

    harness.policy.subscribe = refuse_secrets  # type: ignore[method-assign]  # a policy of the application's
    found = subs(harness, Identity(user="ann"), subs={"secret": {}, "news": {}})
    assert asked == ["secret", "news"]
    assert found == {"news": {"data": "welcome"}}
    assert not harness.node.hub.has_subscribers("secret")


def test_many_tokens_are_verified_in_slices() -> None:
    """Other clients get their turn in between: verifying takes a tenth of a millisecond each."""

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


def test_a_client_that_goes_while_its_token_is_verified_leaves_nothing() -> None:
    """Nothing is entered after the end."""

    async def scenario() -> None:
        harness = NodeHarness(OPEN)
        harness.tokens.connections.known["t"] = Identity(user="ann")
        harness.tokens.add_subscription("s", "ann", "news")
        client = harness.open_session()
        let_in = harness.calls.hold("verify")
        client.send("connect", token="t", subs={"news": {"token": "s"}})
        harness.calls.hold("verify")
        let_in()
        await settle()
        assert harness.calls.completed == ["verify t"]
        client.drop_connection()
        harness.calls.release("verify")
        await settle()
        assert harness.calls.completed == ["verify t", "verify s"]
        assert (harness.node.hub.statistics().subscriptions, len(harness.node.registry)) == (0, 0)

    asyncio.run(scenario())


def test_one_bad_channel_undoes_the_others() -> None:
    """A connect that fails halfway leaves neither subscriptions nor presence nor a registered user."""
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
    assert not any(call.startswith("publish_leave") for call in harness.calls.completed)


def test_publications_during_connect_come_right_after_the_reply() -> None:
    """What arrives while a second channel is still being entered is held for the first."""

    async def scenario() -> None:
        harness = NodeHarness(RECOVERABLE)
        harness.tokens.connections.known["t"] = Identity(user="ann", channels=grants_for("a", "b"))
        harness.publish("a", "before")
        run(harness.node.attachments.attach("a"))
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
