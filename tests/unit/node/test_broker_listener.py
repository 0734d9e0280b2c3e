"""Announcements of the broker reach the hub."""

from __future__ import annotations

import json

from msgspec import Raw

from beaconfire.channels.options import ChannelOptions
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.publication import ClientInfo, Publication
from tests.unit.kit import OPEN, RECOVERABLE, WITH_PRESENCE, NodeHarness
from tests.unit.patching import chained_text
from tests.unit.session.operations.support import with_history


def test_publication_is_delivered_with_its_exclusions() -> None:
    """The position of an excluded client moves as well."""
    harness = NodeHarness(RECOVERABLE)
    ann, bob = harness.connect("ann", "news"), harness.connect("bob", "news")
    epoch = ann.session.subscriptions["news"].epoch
    harness.node.listener.on_publication("news", Publication(Raw(b"1"), offset=1), epoch, 0, (ann.id,))
    harness.node.listener.on_publication("other", Publication(Raw(b"2"), offset=1), epoch, 0, ())
    assert ann.receive() == []
    assert [push["pub"]["data"] for push in bob.receive_pushes()] == [1]
    assert ann.session.subscriptions["news"].position == (1, epoch)


def test_publication_is_sent_as_a_patch_only_if_the_broker_says_so() -> None:
    """The publisher's permission travels with the announcement."""
    harness = NodeHarness(ChannelOptions(allow_subscribe_for_client=True, allowed_delta_types=["fossil"]))
    client = harness.connect("ann")
    client.request("subscribe", channel="news", delta="fossil")
    for number, delta in enumerate((True, False, True)):
        data = Raw(json.dumps(chained_text(number)).encode())
        harness.node.listener.on_publication("news", Publication(data), "", 0, (), delta)
    assert [push["pub"].get("delta", False) for push in client.receive_pushes()] == [False, False, True]


def test_joins_and_leaves_are_delivered() -> None:
    """They are delivered in the order of the calls."""
    harness = NodeHarness(WITH_PRESENCE)
    client = harness.connect("ann", "news")
    info = ClientInfo("bob", "client9")
    harness.node.listener.on_join("news", info)
    harness.node.listener.on_leave("news", info)
    shown = {"info": {"user": "bob", "client": "client9"}}
    assert client.receive_pushes() == [{"channel": "news", "join": shown}, {"channel": "news", "leave": shown}]


def test_lost_link_is_not_told_to_clients() -> None:
    """The link may concern all channels or the named ones. The next subscriber attaches again."""
    harness = NodeHarness(OPEN, {"kept": with_history()})
    client = harness.connect("ann", "kept:a", "kept:b", "free")
    served = harness.connect("bob", channels={"kept:b": SubscriptionGrant(), "kept:c": SubscriptionGrant()})
    harness.node.listener.on_link_down(["kept:a", "free", "unknown"])
    attachments = harness.node.work.attachments
    assert [attachments.is_attached(name) for name in ("kept:a", "kept:b", "free")] == [False, True, False]
    harness.node.listener.on_link_down(None)
    assert not attachments.is_attached("kept:b")
    assert set(client.session.subscriptions) == {"kept:a", "kept:b", "free"}
    assert (client.receive(), served.receive(), served.disconnect_code) == ([], [], 0)
    harness.node.listener.on_link_up(["free"])
    assert [attachments.is_attached(name) for name in ("kept:a", "kept:b", "free")] == [False, False, True]
    harness.node.listener.on_link_up(None)
    assert len(attachments) == 4
