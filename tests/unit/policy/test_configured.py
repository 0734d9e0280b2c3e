"""The configured rules: connect, subscribe, publish and rpc (sections 6, 8, 9 and 13 of the protocol reference)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from beaconfire.base.errors import CommandError, Disconnect
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespaces
from beaconfire.channels.options import ChannelNameOptions
from beaconfire.model.identity import NAME_LENGTH_MAX, Identity
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.policy.configured import ConfiguredPolicy
from beaconfire.policy.port import Policy
from beaconfire.policy.tokens import TokenExpired, TokenInvalid, TokenUnverifiable
from beaconfire.protocols.centrifuge.requests import ConnectRequest, SubscribeRequest
from beaconfire.session.options import ClientOptions
from tests.fakes.engine import ManualCalls
from tests.fakes.tokens import KnownTokens
from tests.unit.kit import OPEN, run

ANN = Identity(user="ann", info=Raw(b'{"name":"Ann"}'))
FAILURES = {"old": TokenExpired("exp"), "bad": TokenInvalid("signature"), "unverifiable": TokenUnverifiable("no keys")}


def new_policy(**options: Any) -> ConfiguredPolicy:
    connection, subscription = KnownTokens(ManualCalls()), KnownTokens(ManualCalls())
    connection.connections.known |= {"ann": ANN, "anonymous": Identity(), "bob": Identity(user="bob"), **FAILURES}
    subscription.subscriptions.known |= FAILURES
    subscription.add_subscription("news", "ann", "news", info=Raw(b"1"))
    subscription.add_subscription("news for bob", "bob", "news")
    subscription.add_subscription("sport", "ann", "sport")
    subscription.add_subscription("news for c1", "ann", "news", client="c1")
    channels = Namespaces(OPEN, {}, ChannelNameOptions(), 1.0)
    client_options = ClientOptions(**options)
    return ConfiguredPolicy(
        connection, subscription, channels, Access(channels, client_options.insecure), client_options
    )


def outcome(decide: Coroutine[Any, Any, object]) -> int:
    """0 if the policy permits, else the code of the error or the disconnect."""
    try:
        run(decide)
    except (CommandError, Disconnect) as failure:
        return failure.code.code
    return 0


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
        ("", {}, 101),
        ("", {"allow_anonymous": True}, 0),
        ("", {"insecure": True}, 0),
        ("", {"disallow_anonymous_connection_tokens": True, "allow_anonymous": True}, 0),
    ],
)
def test_connect_permission(token: str, options: dict[str, bool], code: int) -> None:
    """A given token is verified in every mode, and an invalid one does not make the client anonymous."""
    assert outcome(new_policy(**options).connect(ConnectRequest(token=token))) == code


def test_identity_is_that_of_the_token() -> None:
    """Every field is from the token, in every mode."""
    for options in ({}, {"insecure": True}, {"allow_anonymous": True}):
        assert run(new_policy(**options).connect(ConnectRequest(token="ann"))) == ANN


def test_user_of_the_request_is_trusted_only_in_insecure_mode() -> None:
    """In other modes it is only a name to show. With a token it must be the token's user."""
    claims = ConnectRequest(user="ann")
    assert run(new_policy(insecure=True).connect(claims)) == Identity(user="ann")
    anonymous = run(new_policy(allow_anonymous=True).connect(claims))
    assert (anonymous.user, msgspec.json.decode(anonymous.info)) == ("", {"name": "ann"})
    assert run(new_policy(allow_anonymous=True).connect(ConnectRequest())).info is NO_PAYLOAD
    assert outcome(new_policy().connect(claims)) == 101
    assert outcome(new_policy().connect(ConnectRequest(token="ann", user="ann"))) == 0
    assert outcome(new_policy().connect(ConnectRequest(token="ann", user="bob"))) == 103
    assert outcome(new_policy(insecure=True).connect(ConnectRequest(token="ann", user="bob"))) == 103


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
    request = ConnectRequest(data=Raw(data.encode("utf-8", "surrogateescape")))
    identity = run(new_policy(allow_anonymous=True).connect(request))
    assert identity.user == ""
    assert (msgspec.json.decode(identity.info)["name"] if shown else identity.info) == (shown or NO_PAYLOAD)


def test_name_in_data_counts_only_for_anonymous_clients() -> None:
    """A token's identity counts, insecure mode trusts `user`, and `user` comes before the name in data."""
    data = Raw(b'{"name":"Bob"}')
    assert run(new_policy(allow_anonymous=True).connect(ConnectRequest(token="ann", data=data))) == ANN
    assert run(new_policy(allow_anonymous=True).connect(ConnectRequest(token="anonymous", data=data))) == Identity()
    assert run(new_policy(insecure=True).connect(ConnectRequest(data=data))) == Identity()
    assert outcome(new_policy().connect(ConnectRequest(data=data))) == 101
    both = run(new_policy(allow_anonymous=True).connect(ConnectRequest(user="ann", data=data)))
    assert msgspec.json.decode(both.info) == {"name": "ann"}


@pytest.mark.parametrize(
    ("token", "code"), [("ann", 0), ("old", 3005), ("bad", 3500), ("bob", 3500), ("unverifiable", 100)]
)
def test_refresh_needs_a_valid_token_of_the_same_user(token: str, code: int) -> None:
    """If the token cannot be verified at the moment, the error is temporary."""
    assert outcome(new_policy().refresh(ANN, token)) == code


@pytest.mark.parametrize(
    ("token", "subscribe", "refresh"),
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
def test_subscription_token_is_for_one_user_and_channel(token: str, subscribe: int, refresh: int) -> None:
    """An invalid token is an error in subscribe, and a disconnect in sub_refresh."""
    policy = new_policy()
    namespace = Namespaces(OPEN, {}, ChannelNameOptions(), 1.0).resolve("news")
    request = SubscribeRequest(channel="news", token=token)
    assert outcome(policy.subscribe(ANN, "c1", request, namespace)) == subscribe
    assert outcome(policy.sub_refresh(ANN, "c1", "news", token)) == refresh


def test_subscription_token_may_be_for_one_client() -> None:
    """Other connections of the user cannot use it."""
    policy = new_policy()
    namespace = Namespaces(OPEN, {}, ChannelNameOptions(), 1.0).resolve("news")
    request = SubscribeRequest(channel="news", token="news for c1")
    assert outcome(policy.subscribe(ANN, "c2", request, namespace)) == 3500
    assert outcome(policy.sub_refresh(ANN, "c2", "news", "news for c1")) == 3500


def test_subscription_token_permits_any_channel() -> None:
    """The channel may be private. The grant has the info of the token."""
    policy = new_policy()
    namespace = Namespaces(OPEN, {}, ChannelNameOptions(), 1.0).resolve("news")
    grant = run(policy.subscribe(ANN, "c1", SubscribeRequest(channel="news", token="news"), namespace))
    assert grant.info == Raw(b"1")
    assert outcome(policy.subscribe(ANN, "c1", SubscribeRequest(channel="news"), namespace)) == 0
    assert outcome(policy.subscribe(Identity(), "c1", SubscribeRequest(channel="news"), namespace)) == 103
    assert outcome(policy.subscribe(ANN, "c1", SubscribeRequest(channel="$news"), namespace)) == 103


def test_publish_returns_the_data_unchanged() -> None:
    """The client needs the permission to publish."""
    policy = new_policy()
    namespace = Namespaces(OPEN, {}, ChannelNameOptions(), 1.0).resolve("news")
    data = Raw(b'{"a": 1}')
    assert run(policy.publish(ANN, False, "news", namespace, data)) is data
    assert outcome(policy.publish(Identity(), True, "news", namespace, data)) == 103


@pytest.mark.parametrize(("method", "code"), [("", 108), ("echo", 108), ("unknown:echo", 104)])
def test_rpc_without_handlers_is_an_error(method: str, code: int) -> None:
    """108 for any method, 104 for an unknown namespace of methods (section 13)."""
    assert outcome(new_policy().rpc(ANN, method, NO_PAYLOAD)) == code


def test_details_never_have_the_token() -> None:
    """They are logged, and sent to the client with debug_reasons."""
    calls: list[Callable[[ConfiguredPolicy], Coroutine[Any, Any, object]]] = [
        lambda policy: policy.connect(ConnectRequest(token="old")),
        lambda policy: policy.refresh(ANN, "bad"),
        lambda policy: policy.sub_refresh(ANN, "c1", "news", "sport"),
    ]
    for call, token in zip(calls, ("old", "bad", "sport"), strict=True):
        with pytest.raises((CommandError, Disconnect)) as raised:
            run(call(new_policy()))
        reason = str(raised.value).partition(": ")[2]
        assert reason
        assert token not in reason
