"""Permissions without tokens: sections 9, 13 and 18 of the protocol reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespace, Namespaces
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions


def make(insecure: bool = False, **options: bool) -> tuple[Access, Namespace]:
    channels = Namespaces(ChannelOptions(**options), {}, ChannelNameOptions(), 1.0)  # type: ignore[arg-type]
    return Access(channels, insecure), channels.resolve("x")


@pytest.mark.parametrize(
    ("user", "channel", "options", "allowed"),
    [
        ("ann", "x", {}, False),
        ("ann", "x", {"allow_subscribe_for_client": True}, True),
        ("", "x", {"allow_subscribe_for_client": True}, False),
        ("", "x", {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}, True),
        ("", "x", {"allow_subscribe_for_anonymous": True}, False),
        ("ann", "x", {"allow_subscribe_for_anonymous": True}, False),
        ("ann", "$x", {"allow_subscribe_for_client": True}, False),
        ("ann", "x#ann", {}, False),
        ("ann", "x#ann", {"allow_user_limited_channels": True}, True),
        ("ann", "x#bob,ann", {"allow_user_limited_channels": True}, True),
        ("ann", "x#bob", {"allow_user_limited_channels": True}, False),
        ("an", "x#ann", {"allow_user_limited_channels": True}, False),
        ("ann", "x", {"allow_user_limited_channels": True}, False),
        ("ann", "$x#ann", {"allow_user_limited_channels": True}, False),
        ("", "x#", {"allow_user_limited_channels": True}, False),
        ("", "x#ann,", {"allow_user_limited_channels": True}, False),
        ("ann", "x#bob", {"allow_user_limited_channels": True, "allow_subscribe_for_client": True}, False),
        ("ann", "x#bob", {"allow_subscribe_for_client": True}, True),
    ],
)
def test_subscribe_permission_without_a_token(user: str, channel: str, options: dict[str, bool], allowed: bool) -> None:
    """Private channels need a token.

    A user list decides alone if user lists are enabled. Anonymous users are in no list.
    """
    access, namespace = make(**options)
    assert access.may_subscribe(user, channel, namespace) is allowed


@pytest.mark.parametrize(
    ("user", "channel", "allowed"),
    [
        ("a", "#a", True),
        ("b", "#a", False),
        ("", "#", False),
        ("a", "#a,b", False),
        ("a", "x#a", True),
        ("a", "x", True),
    ],
)
def test_personal_channels_permit_only_their_user(user: str, channel: str, allowed: bool) -> None:
    """However open the namespace is."""
    channels = Namespaces(ChannelOptions(allow_subscribe_for_client=True), {}, ChannelNameOptions(), 1.0)
    access = Access(channels, insecure=False, personal_namespace="")
    assert access.may_subscribe(user, channel, channels.resolve("x")) is allowed


def test_insecure_mode_permits_all_but_private_channels() -> None:
    """Private channels need a token, because that check comes first (section 9)."""
    access, namespace = make(insecure=True, allow_user_limited_channels=True)
    assert access.may_subscribe("", "x#bob", namespace)
    assert not access.may_subscribe("ann", "$x", namespace)
    assert access.may_publish("", False, namespace)
    assert access.may_see_presence("", False, namespace)
    assert access.may_read_history("", False, namespace)


PERMISSIONS: dict[str, Callable[[Access], Callable[[str, bool, Namespace], bool]]] = {
    "publish": lambda access: access.may_publish,
    "presence": lambda access: access.may_see_presence,
    "history": lambda access: access.may_read_history,
}


@pytest.mark.parametrize("permission", PERMISSIONS)
@pytest.mark.parametrize(
    ("user", "subscribed", "granted_to", "allowed"),
    [
        ("ann", True, "", False),
        ("ann", False, "client", True),
        ("ann", False, "subscriber", False),
        ("ann", True, "subscriber", True),
        ("ann", True, "anonymous", False),
        ("", True, "client", False),
        ("", False, "client anonymous", True),
        ("", True, "subscriber", False),
        ("", True, "subscriber anonymous", True),
        ("", False, "subscriber anonymous", False),
        ("", True, "anonymous", False),
    ],
)
def test_publish_presence_and_history_permissions(
    permission: str, user: str, subscribed: bool, granted_to: str, allowed: bool
) -> None:
    """`_for_client` is any user, `_for_subscriber` a subscribed one, and `_for_anonymous` extends both to anonymous
    users."""
    access, namespace = make(**{f"allow_{permission}_for_{who}": True for who in granted_to.split()})
    assert PERMISSIONS[permission](access)(user, subscribed, namespace) is allowed


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_permissions_are_independent(permission: str) -> None:
    """All other permissions together do not give this one."""
    others = {f"allow_{other}_for_client": True for other in [*PERMISSIONS, "subscribe"] if other != permission}
    access, namespace = make(**others)
    assert not PERMISSIONS[permission](access)("ann", True, namespace)
