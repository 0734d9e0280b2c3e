"""Channel options, tokens and helpers that the tests of several operations share."""

from __future__ import annotations

from typing import Any, Literal

from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from tests.unit.kit import HarnessClient, NodeHarness, run

UNIX_S = 1_700_000_000
"""The wall-clock time at which a `NodeHarness` starts."""

CLOSED = ChannelOptions()
OPEN_TO_ANONYMOUS = ChannelOptions(allow_subscribe_for_client=True, allow_subscribe_for_anonymous=True)
HISTORY: dict[str, Any] = {"history_size": 10, "history_ttl": Seconds(300)}
WITH_JOIN_LEAVE = ChannelOptions(
    allow_subscribe_for_client=True,
    allow_presence_for_client=True,
    presence=True,
    join_leave=True,
    force_push_join_leave=True,
)
ALL_STEPS = ChannelOptions(
    allow_subscribe_for_client=True, presence=True, join_leave=True, force_recovery=True, **HISTORY
)
"""A subscribe command makes every call to the engine: attach, history, presence_add and announce."""


def with_history(mode: Literal["stream", "cache"] = "stream", **options: Any) -> ChannelOptions:
    return ChannelOptions(
        allow_subscribe_for_client=True, force_recovery_mode=mode, **{"force_recovery": True, **HISTORY, **options}
    )


def grants_for(*channels: str) -> dict[str, SubscriptionGrant]:
    """The grants of a connection token with these server-side channels."""
    return {channel: SubscriptionGrant() for channel in channels}


def connect_with(harness: NodeHarness, identity: Identity, **request: Any) -> tuple[HarnessClient, int]:
    """A client that has sent connect with a token of this identity, and the code of the outcome."""
    harness.tokens.connections.known["t"] = identity
    client = harness.open_session()
    return client, client.request_code("connect", token="t", **request)


def without_pings(**options: Any) -> NodeHarness:
    return NodeHarness(CLOSED, ping_interval=Seconds(0), **options)


def subscribe_with_expiry(harness: NodeHarness, **grant: Any) -> HarnessClient:
    """A client that is subscribed to `news` with a token that expires in a minute."""
    client = harness.connect("ann")
    harness.tokens.add_subscription(
        "t", "ann", "news", **{"expire_at_unix_s": UNIX_S + 60.0, "client_refresh": True, **grant}
    )
    client.request("subscribe", channel="news", token="t")
    return client


def lose_history(harness: NodeHarness, channel: str = "news", *, publish_next: bool = True) -> None:
    """As `lose_publication`, and history does not have the publication any more."""
    lose_publication(harness, channel, publish_next=False)
    run(harness.memory.broker.remove_history(channel))
    if publish_next:
        harness.publish(channel, "after")


def lose_publication(harness: NodeHarness, channel: str = "news", *, publish_next: bool = True) -> None:
    """Publishes without an announcement to this node, and then once more with one unless `publish_next` is false."""
    run(harness.memory.broker.detach([channel]))
    harness.publish(channel, "lost")
    run(harness.memory.broker.attach([channel]))
    if publish_next:
        harness.publish(channel, "after")
