"""The configured rules: connect, subscribe, publish and reading (sections 6, 8, 9 and 13 of the protocol reference).

The policy has no opinion about a request that the configuration does not permit. `test_decisions` tests that a request
about which no policy has an opinion is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from beaconfire.base.errors import CommandError, Disconnect
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespaces
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.handshake import Handshake
from beaconfire.model.identity import NAME_LENGTH_MAX, Identity
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.policy.configured import ConfiguredPolicy
from beaconfire.policy.port import DECISIONS, ConnectionAttempt, Policy, PublicationAttempt, Via
from beaconfire.policy.tokens import TokenExpired, TokenInvalid, TokenUnverifiable
from beaconfire.session.options import ClientOptions
from tests.fakes.engine import ManualCalls
from tests.fakes.tokens import KnownTokens
from tests.fakes.transport import HANDSHAKE
from tests.unit.kit import OPEN, run
from tests.unit.policy.fakes import FakeCaller

ANN = Identity(user="ann", info=Raw(b'{"name":"Ann"}'))
ANN_CALLER = FakeCaller("c1", ANN)
ANONYMOUS = FakeCaller("c1", Identity())
NAMESPACE = Namespaces(OPEN, {}, ChannelNameOptions(), 1.0).resolve("news")
FAILURES = {"old": TokenExpired("exp"), "bad": TokenInvalid("signature"), "unverifiable": TokenUnverifiable("no keys")}


def new_policy(**options: Any) -> ConfiguredPolicy:
    connection, subscription = KnownTokens(ManualCalls()), KnownTokens(ManualCalls())
    connection.connections.known |= {"ann": ANN, "anonymous": Identity(), "bob": Identity(user="bob"), **FAILURES}
    subscription.subscriptions.known |= FAILURES
    subscription.add_subscription("news", "ann", "news", info=Raw(b"1"))
    subscription.add_subscription("news for bob", "bob", "news")
    subscription.add_subscription("sport", "ann", "sport")
    subscription.add_subscription("news for c1", "ann", "news", client="c1")
    subscription.add_subscription("secret", "ann", "$secret")
    channels = Namespaces(OPEN, {}, ChannelNameOptions(), 1.0)
    client_options = ClientOptions(**options)
    return ConfiguredPolicy(
        connection, subscription, channels, Access(channels, client_options.insecure), client_options
    )


def outcome(decide: Coroutine[Any, Any, object]) -> int | None:
    """0 if the policy permits, None if it has no opinion, else the code of the error or the disconnect."""
    try:
        return 0 if run(decide) is not None else None
    except (CommandError, Disconnect) as failure:
        return failure.code.code


def attempt(
    token: str = "", user: str = "", data: Raw = NO_PAYLOAD, handshake: Handshake = HANDSHAKE
) -> ConnectionAttempt:
    return ConnectionAttempt(ConnectionRequest(token, data, user=user), "c1", handshake)


def identity_of(policy: ConfiguredPolicy, attempted: ConnectionAttempt) -> Identity:
    """The identity of a client that may connect."""
    identity = run(policy.connect(attempted))
    assert identity is not None
    return identity


def subscribe(
    caller: FakeCaller,
    channel: str,
    token: str = "",
    via: Via = Via.COMMAND,
    proposed: SubscriptionGrant | None = None,
    **options: Any,
) -> Coroutine[Any, Any, SubscriptionGrant | None]:
    request = SubscriptionRequest(channel, token)
    return new_policy(**options).subscribe(caller, request, NAMESPACE, via, proposed)


def test_configured_policy_implements_the_port() -> None:
    """mypy checks the assignment."""
    policy: Policy = new_policy()
    assert policy is not None


@pytest.mark.parametrize(
    ("token", "options", "code"),
    [
        ("ann", {}, 0),
        ("anonymous", {}, 0),
        ("old", {}, 109),
        ("bad", {}, 3500),
        ("unverifiable", {}, 100),
        ("anonymous", {"disallow_anonymous_connection_tokens": True}, 3507),
        ("ann", {"disallow_anonymous_connection_tokens": True}, 0),
        ("bad", {"insecure": True}, 3500),
        ("bad", {"allow_anonymous": True}, 3500),
        ("old", {"allow_anonymous": True}, 109),
        ("", {}, None),
        ("", {"allow_anonymous": True}, 0),
        ("", {"insecure": True}, 0),
        ("", {"disallow_anonymous_connection_tokens": True, "allow_anonymous": True}, 0),
    ],
)
def test_connect_permission(token: str, options: dict[str, bool], code: int | None) -> None:
    """A given token is verified in every mode, and an invalid one does not make the client anonymous."""
    assert outcome(new_policy(**options).connect(attempt(token))) == code


def test_identity_is_that_of_the_token() -> None:
    """Every field is from the token, in every mode."""
    for options in ({}, {"insecure": True}, {"allow_anonymous": True}):
        assert run(new_policy(**options).connect(attempt("ann"))) == ANN


def test_user_of_the_request_is_trusted_only_in_insecure_mode() -> None:
    """In other modes it is only a name to show. With a token it must be the token's user."""
    claims = attempt(user="ann")
    assert identity_of(new_policy(insecure=True), claims) == Identity(user="ann")
    anonymous = identity_of(new_policy(allow_anonymous=True), claims)
    assert (anonymous.user, msgspec.json.decode(anonymous.info)) == ("", {"name": "ann"})
    assert identity_of(new_policy(allow_anonymous=True), attempt()).info is NO_PAYLOAD
    assert outcome(new_policy().connect(claims)) is None
    assert outcome(new_policy().connect(attempt("ann", "ann"))) == 0
    assert outcome(new_policy().connect(attempt("ann", "bob"))) == 103
    assert outcome(new_policy(insecure=True).connect(attempt("ann", "bob"))) == 103


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ('{"name":"Ann"}', "Ann"),
        ('{"theme":{"unverifiable":true},"name":"\\u738b"}', "王"),
        ('{"name":"half an emoji \\ud83d"}', "half an emoji \ufffd"),
        (f'{{"name":"{"é" * NAME_LENGTH_MAX}"}}', "é" * NAME_LENGTH_MAX),
        (f'{{"name":"{"é" * (NAME_LENGTH_MAX + 1)}"}}', ""),
        ('{"name":""}', ""),
        ('{"name":null}', ""),
        ('{"name":["Ann"]}', ""),
        ('{"user":"Ann"}', ""),
        ('"Ann"', ""),
        ('["Ann"]', ""),
        ("null", ""),
        ('{"name":"Ann"', ""),
        ('{"name":"' + "\udcff" + '"}', ""),
        ("[" * 5000, ""),
        ("", ""),
    ],
)
def test_anonymous_client_may_send_a_name_in_its_data(data: str, shown: str) -> None:
    """The name is in its info. Data without a name is not an error."""
    identity = identity_of(new_policy(allow_anonymous=True), attempt(data=Raw(data.encode("utf-8", "surrogateescape"))))
    assert identity.user == ""
    assert (msgspec.json.decode(identity.info)["name"] if shown else identity.info) == (shown or NO_PAYLOAD)


def test_name_in_data_counts_only_for_anonymous_clients() -> None:
    """A token's identity counts, insecure mode trusts `user`, and `user` comes before the name in data."""
    data = Raw(b'{"name":"Bob"}')
    assert identity_of(new_policy(allow_anonymous=True), attempt("ann", data=data)) == ANN
    assert identity_of(new_policy(allow_anonymous=True), attempt("anonymous", data=data)) == Identity()
    assert identity_of(new_policy(insecure=True), attempt(data=data)) == Identity()
    assert outcome(new_policy().connect(attempt(data=data))) is None
    both = identity_of(new_policy(allow_anonymous=True), attempt(user="ann", data=data))
    assert msgspec.json.decode(both.info) == {"name": "ann"}


@pytest.mark.parametrize(
    ("token", "code"), [("ann", 0), ("old", 3005), ("bad", 3500), ("bob", 3500), ("unverifiable", 100)]
)
def test_refresh_needs_a_valid_token_of_the_same_user(token: str, code: int) -> None:
    """If the token cannot be verified at the moment, the error is temporary."""
    assert outcome(new_policy().refresh(ANN_CALLER, token)) == code


@pytest.mark.parametrize(
    ("token", "subscribed", "refreshed"),
    [
        ("news", 0, 0),
        ("news for c1", 0, 0),
        ("old", 109, 3006),
        ("bad", 103, 3500),
        ("unverifiable", 100, 100),
        ("sport", 3500, 3500),
        ("news for bob", 3500, 3500),
    ],
)
def test_subscription_token_is_for_one_user_and_channel(token: str, subscribed: int, refreshed: int) -> None:
    """An invalid token is an error in subscribe, and a disconnect in sub_refresh."""
    assert outcome(subscribe(ANN_CALLER, "news", token)) == subscribed
    assert outcome(new_policy().sub_refresh(ANN_CALLER, "news", token)) == refreshed


def test_subscription_token_may_be_for_one_client() -> None:
    """Other connections of the user cannot use it."""
    other = FakeCaller("c2", ANN)
    assert outcome(subscribe(other, "news", "news for c1")) == 3500
    assert outcome(new_policy().sub_refresh(other, "news", "news for c1")) == 3500


def test_subscription_token_permits_any_channel() -> None:
    """The channel may be private. The grant has the info of the token. Without a token, the permission of the namespace
    counts."""
    grant = run(subscribe(ANN_CALLER, "news", "news"))
    assert grant is not None
    assert grant.info == Raw(b"1")
    assert outcome(subscribe(ANN_CALLER, "$secret", "secret")) == 0
    assert run(subscribe(ANN_CALLER, "news")) == SubscriptionGrant()
    assert outcome(subscribe(ANONYMOUS, "news")) is None
    assert outcome(subscribe(ANN_CALLER, "$news")) is None


@pytest.mark.parametrize("via", [Via.TOKEN, Via.SERVER_API, Via.CONNECT])
def test_a_grant_is_left_as_it_is(via: Via) -> None:
    """A connection token, the server API, or an earlier policy has permitted the subscription. The permissions of
    namespaces are those of clients, so they do not refuse it."""
    proposed = SubscriptionGrant(info=Raw(b"2"))
    assert outcome(subscribe(ANONYMOUS, "$news", via=via, proposed=proposed)) is None


def publication(
    caller: FakeCaller | None, data: Raw, subscribed: bool = False, via: Via = Via.COMMAND
) -> PublicationAttempt:
    return PublicationAttempt(caller, via, "news", NAMESPACE, data, subscribed=subscribed)


def test_publish_returns_the_data_unchanged() -> None:
    """The client needs the permission to publish; the server API needs none."""
    policy = new_policy()
    data = Raw(b'{"a": 1}')
    assert run(policy.publish(publication(ANN_CALLER, data))) is data
    assert outcome(policy.publish(publication(ANONYMOUS, data, subscribed=True))) is None
    assert run(policy.publish(publication(None, data, via=Via.SERVER_API))) is data


@pytest.mark.parametrize("subscribed", [False, True])
def test_reading_needs_a_permission(subscribed: bool) -> None:
    """Presence and history have permissions of their own. Some permissions are only for subscribers."""
    policy = new_policy()
    closed, readable = ChannelOptions(), ChannelOptions(allow_presence_for_client=True, allow_history_for_client=True)
    for_subscribers = ChannelOptions(allow_presence_for_subscriber=True, allow_history_for_subscriber=True)
    for options, permitted in ((closed, None), (readable, True), (for_subscribers, subscribed or None)):
        namespace = Namespaces(options, {}, ChannelNameOptions(), 1.0).resolve("news")
        assert run(policy.presence(ANN_CALLER, "news", namespace, subscribed)) is permitted
        assert run(policy.history(ANN_CALLER, "news", namespace, subscribed)) is permitted
    only_presence = ChannelOptions(allow_presence_for_client=True)
    namespace = Namespaces(only_presence, {}, ChannelNameOptions(), 1.0).resolve("news")
    assert run(policy.history(ANN_CALLER, "news", namespace, True)) is None


@pytest.mark.parametrize("method", ["", "echo", "unknown:echo"])
def test_the_configuration_has_no_rpc_and_no_messages(method: str) -> None:
    """They need handlers."""
    assert run(new_policy().rpc(ANN_CALLER, method, NO_PAYLOAD)) is None
    assert run(new_policy().message(ANN_CALLER, NO_PAYLOAD)) is None
    assert not new_policy().wants_endings


def test_only_decisions_about_tokens_suspend() -> None:
    """And only if keys may have to be fetched, for connection tokens or for subscription tokens."""
    assert new_policy().suspending == frozenset()
    for fetching in range(2):
        calls = [ManualCalls(), ManualCalls()]
        calls[fetching].hold("verify")
        connection, subscription = (KnownTokens(each) for each in calls)
        channels = Namespaces(OPEN, {}, ChannelNameOptions(), 1.0)
        policy = ConfiguredPolicy(connection, subscription, channels, Access(channels, False), ClientOptions())
        assert policy.suspending == {"connect", "refresh", "subscribe", "sub_refresh"} <= set(DECISIONS)


def test_details_never_have_the_token() -> None:
    """They are logged, and sent to the client with debug_reasons."""
    calls: list[Callable[[ConfiguredPolicy], Coroutine[Any, Any, object]]] = [
        lambda policy: policy.connect(attempt("old")),
        lambda policy: policy.refresh(ANN_CALLER, "bad"),
        lambda policy: policy.sub_refresh(ANN_CALLER, "news", "sport"),
    ]
    for call, token in zip(calls, ("old", "bad", "sport"), strict=True):
        with pytest.raises((CommandError, Disconnect)) as raised:
            run(call(new_policy()))
        reason = str(raised.value).partition(": ")[2]
        assert reason
        assert token not in reason
