"""The configured rules: who may connect, subscribe, publish and call (sections 6, 8, 9 and 13 of the reference)."""

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
from beaconfire.model.requests import ConnectRequest, SubscribeRequest
from beaconfire.policy.configured import ConfiguredPolicy
from beaconfire.policy.port import Policy
from beaconfire.policy.tokens import TokenExpired, TokenInvalid, TokenUnverifiable
from beaconfire.session.options import ClientOptions
from tests.fakes.engine import ManualCalls
from tests.fakes.tokens import KnownTokens
from tests.unit.kit import OPEN, run

ANN = Identity(user="ann", info=Raw(b'{"name":"Ann"}'))
FAILURES = {"old": TokenExpired("exp"), "bad": TokenInvalid("signature"), "unverifiable": TokenUnverifiable("no keys")}


def new_policy(**options: Any) -> ConfiguredPolicy:
    connection, subscription = KnownTokens(ManualCalls()), KnownTokens(ManualCalls())
    connection.connections.known |= {"ann": ANN, "nobody": Identity(), "bob": Identity(user="bob"), **FAILURES}
    subscription.subscriptions.known |= FAILURES
    subscription.add_subscription("news", "ann", "news", info=Raw(b"1"))
    subscription.add_subscription("news of bob", "bob", "news")
    subscription.add_subscription("sport", "ann", "sport")
    subscription.add_subscription("news of c1", "ann", "news", client="c1")
    channels = Namespaces(OPEN, {}, ChannelNameOptions(), 1.0)
    client_options = ClientOptions(**options)
    return ConfiguredPolicy(
        connection, subscription, channels, Access(channels, client_options.insecure), client_options
    )


def outcome(decide: Coroutine[Any, Any, object]) -> int:
    """0 if it is granted, else the code of the error or the disconnect."""
    try:
        run(decide)
    except (CommandError, Disconnect) as failure:
        return failure.code.code
    return 0


def test_it_implements_the_port() -> None:
    """Handlers and webhooks will stand in front of it."""
    policy: Policy = new_policy()
    assert policy is not None


@pytest.mark.parametrize(
    ("token", "options", "code"),
    [
        ("ann", {}, 0),
        ("nobody", {}, 0),
        ("old", {}, 109),
        ("bad", {}, 3500),
        ("unverifiable", {}, 100),
        ("nobody", {"disallow_anonymous_connection_tokens": True}, 3507),
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
def test_who_may_connect(token: str, options: dict[str, bool], code: int) -> None:
    """A token that is there is verified in every mode, and a bad one makes nobody anonymous."""
    assert outcome(new_policy(**options).connect(ConnectRequest(token=token))) == code


def test_a_token_says_who_it_is() -> None:
    """All of what it says, in every mode."""
    for options in ({}, {"insecure": True}, {"allow_anonymous": True}):
        assert run(new_policy(**options).connect(ConnectRequest(token="ann"))) == ANN


def test_a_claimed_name_is_believed_in_insecure_mode_only() -> None:
    """Elsewhere it is a name to show; with a token it must be the token's."""
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
def test_an_anonymous_client_may_give_a_name_in_its_data(data: str, shown: str) -> None:
    """It is shown, whatever else is in there. Data that has none is not ours to judge, and keeps nobody out."""
    request = ConnectRequest(data=Raw(data.encode("utf-8", "surrogateescape")))
    identity = run(new_policy(allow_anonymous=True).connect(request))
    assert identity.user == ""
    assert (msgspec.json.decode(identity.info)["name"] if shown else identity.info) == (shown or NO_PAYLOAD)


def test_a_name_in_data_is_for_anonymous_clients_only() -> None:
    """Who has a token is who the token says, insecure mode believes `user`, and a `user` comes before it."""
    data = Raw(b'{"name":"Bob"}')
    assert run(new_policy(allow_anonymous=True).connect(ConnectRequest(token="ann", data=data))) == ANN
    assert run(new_policy(allow_anonymous=True).connect(ConnectRequest(token="nobody", data=data))) == Identity()
    assert run(new_policy(insecure=True).connect(ConnectRequest(data=data))) == Identity()
    assert outcome(new_policy().connect(ConnectRequest(data=data))) == 101
    both = run(new_policy(allow_anonymous=True).connect(ConnectRequest(user="ann", data=data)))
    assert msgspec.json.decode(both.info) == {"name": "ann"}


@pytest.mark.parametrize(
    ("token", "code"), [("ann", 0), ("old", 3005), ("bad", 3500), ("bob", 3500), ("unverifiable", 100)]
)
def test_refreshing_a_connection(token: str, code: int) -> None:
    """Only with a good token of the same user; if the keys cannot be had, the user stays connected."""
    assert outcome(new_policy().refresh(ANN, token)) == code


@pytest.mark.parametrize(
    ("token", "subscribe", "refresh"),
    [
        ("news", 0, 0),
        ("news of c1", 0, 0),
        ("old", 109, 3006),
        ("bad", 103, 3500),
        ("unverifiable", 100, 100),
        ("sport", 3500, 3500),
        ("news of bob", 3500, 3500),
    ],
)
def test_subscription_tokens(token: str, subscribe: int, refresh: int) -> None:
    """They are for one user in one channel; a bad one is an error at first and the end when refreshing."""
    policy = new_policy()
    namespace = Namespaces(OPEN, {}, ChannelNameOptions(), 1.0).resolve("news")
    request = SubscribeRequest(channel="news", token=token)
    assert outcome(policy.subscribe(ANN, "c1", request, namespace)) == subscribe
    assert outcome(policy.sub_refresh(ANN, "c1", "news", token)) == refresh


def test_a_token_may_be_for_one_connection() -> None:
    """Then no other connection of the user can use it."""
    policy = new_policy()
    namespace = Namespaces(OPEN, {}, ChannelNameOptions(), 1.0).resolve("news")
    request = SubscribeRequest(channel="news", token="news of c1")
    assert outcome(policy.subscribe(ANN, "c2", request, namespace)) == 3500
    assert outcome(policy.sub_refresh(ANN, "c2", "news", "news of c1")) == 3500


def test_a_token_grants_what_permissions_do_not() -> None:
    """Private channels included, and what it says of them."""
    policy = new_policy()
    namespace = Namespaces(OPEN, {}, ChannelNameOptions(), 1.0).resolve("news")
    grant = run(policy.subscribe(ANN, "c1", SubscribeRequest(channel="news", token="news"), namespace))
    assert grant.info == Raw(b"1")
    assert outcome(policy.subscribe(ANN, "c1", SubscribeRequest(channel="news"), namespace)) == 0
    assert outcome(policy.subscribe(Identity(), "c1", SubscribeRequest(channel="news"), namespace)) == 103
    assert outcome(policy.subscribe(ANN, "c1", SubscribeRequest(channel="$news"), namespace)) == 103


def test_publishing_passes_the_data_on() -> None:
    """As it is, to those who may."""
    policy = new_policy()
    namespace = Namespaces(OPEN, {}, ChannelNameOptions(), 1.0).resolve("news")
    data = Raw(b'{"a": 1}')
    assert run(policy.publish(ANN, False, "news", namespace, data)) is data
    assert outcome(policy.publish(Identity(), True, "news", namespace, data)) == 103


@pytest.mark.parametrize(("method", "code"), [("", 108), ("echo", 108), ("unknown:echo", 104)])
def test_there_are_no_methods_to_call(method: str, code: int) -> None:
    """Without handlers: not available, and a namespace of methods is not known (section 13)."""
    assert outcome(new_policy().rpc(ANN, method, NO_PAYLOAD)) == code


def test_reasons_never_hold_the_token() -> None:
    """They go to the log, and to the client with debug_reasons."""
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
