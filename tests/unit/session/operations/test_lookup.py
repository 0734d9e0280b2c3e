"""From the channel name in a command to its namespace: section 18 of the protocol reference."""

from __future__ import annotations

import pytest

from beaconfire.base.errors import CommandError
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.session.operations.lookup import ChannelLookup
from tests.unit.kit import OPEN, NodeHarness


def new_lookup() -> tuple[NodeHarness, ChannelLookup]:
    harness = NodeHarness(OPEN, {"chat": ChannelOptions(channel_regex="^[a-z]+$")})
    return harness, ChannelLookup(harness.namespaces, harness.recorder)


@pytest.mark.parametrize(
    ("channel", "code"),
    [("news", 0), ("chat:abc", 0), ("nowhere:x", 102), ("", 107), ("naïve", 107), ("chat:1", 107), ("x" * 256, 107)],
)
def test_channel_name_is_checked(channel: str, code: int) -> None:
    """Its length, its namespace, and its characters."""
    harness, lookup = new_lookup()
    session = harness.connect("ann").session
    if code == 0:
        assert lookup.namespace(session, channel) is harness.namespaces.resolve(channel)
        return
    with pytest.raises(CommandError) as raised:
        lookup.namespace(session, channel)
    assert raised.value.code.code == code


def test_length_limit_of_names_is_counted() -> None:
    """Only for a name over the limit."""
    harness, lookup = new_lookup()
    session = harness.connect("ann").session
    lookup.check_length(session, "x" * 255)
    assert harness.recorder.limits() == []
    with pytest.raises(CommandError, match="107"):
        lookup.check_length(session, "x" * 256)
    assert harness.recorder.limits() == ["channel_names.max_length"]


def test_server_side_subscription_may_have_any_name() -> None:
    """Commands of the client may use the name of a channel to which the server has subscribed it."""
    harness, lookup = new_lookup()
    session = harness.connect("ann", channels={"chat:1": SubscriptionGrant()}).session
    assert lookup.namespace(session, "chat:1").name == "chat"
    with pytest.raises(CommandError, match="107"):
        lookup.namespace(session, "chat:2")
