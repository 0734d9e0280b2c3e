"""Publish, history and presence of channels."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.base.errors import CommandError
from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.position import StreamPosition
from tests.unit.kit import RECOVERABLE, NodeHarness, run

BARE = ChannelOptions()


def test_publishing_stores_and_announces() -> None:
    """Everybody's way in; the answer is the position."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann", "news")
    assert harness.publish("news", "x", tags={"k": "v"}) == StreamPosition(1, "epoch1")
    [push] = client.receive_pushes()
    assert push["pub"] == {"data": "x", "offset": 1, "epoch": "epoch1", "tags": {"k": "v"}}
    page = run(harness.node.channels.history("news", harness.namespaces.resolve("news"), -1))
    assert [bytes(publication.data) for publication in page.publications] == [b'"x"']


def test_history_can_be_skipped() -> None:
    """Then the publication has no place in the stream."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann", "news")
    assert harness.publish("news", 1, skip_history=True) == StreamPosition(0, "")
    assert harness.publish("news", 2) == StreamPosition(1, "epoch1")
    assert [push["pub"].get("offset", 0) for push in client.receive_pushes()] == [0, 1]


def test_publishing_may_exclude_clients() -> None:
    """They do not get it live, their position moves on, and history has it for them too."""
    harness = NodeHarness(RECOVERABLE)
    ann, bob = harness.connect("ann", "news"), harness.connect("bob", "news")
    harness.publish("news", 1, exclude=[ann.id])
    harness.publish("news", 2)
    assert [push["pub"]["data"] for push in ann.receive_pushes()] == [2]
    assert [push["pub"]["data"] for push in bob.receive_pushes()] == [1, 2]
    assert len(ann.request("history", channel="news", limit=5)["publications"]) == 2


def test_publishing_again_with_the_same_key_does_nothing() -> None:
    """Nor does an older version; the position is the first one's, or the top."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann", "news")
    assert harness.publish("news", 1, idempotency_key="k") == harness.publish("news", 1, idempotency_key="k")
    harness.publish("news", 2, version=5)
    assert harness.publish("news", 3, version=5).offset == 2
    assert harness.publish("news", 4, version=1, version_epoch="other").offset == 3
    assert [push["pub"]["data"] for push in client.receive_pushes()] == [1, 2, 4]


def test_what_is_off_is_error_108() -> None:
    """History and presence, to read and to remove, whoever asks."""
    harness = NodeHarness(BARE)
    channels = harness.node.channels
    namespace = harness.namespaces.resolve("news")
    for call in (
        channels.history("news", namespace, 1),
        channels.page("news", namespace, 1, None, False),
        channels.remove_history("news", namespace),
        channels.presence("news", namespace),
        channels.presence_stats("news", namespace),
    ):
        with pytest.raises(CommandError, match="108"):
            run(call)


def test_removing_history_keeps_the_position() -> None:
    """The stream goes on after the last offset."""
    harness = NodeHarness(RECOVERABLE)
    namespace = harness.namespaces.resolve("news")
    harness.publish("news", 1, 2)
    run(harness.node.channels.remove_history("news", namespace))
    page = run(harness.node.channels.page("news", namespace, -1, None, False))
    assert (list(page.publications), page.position) == ([], StreamPosition(2, "epoch1"))
    assert harness.publish("news", 3).offset == 3


def test_positions_outlive_publications() -> None:
    """By the namespace's meta ttl; then the epoch is another, and recovery says so."""
    options = ChannelOptions(
        allow_subscribe_for_client=True,
        history_size=5,
        history_ttl=Seconds(10),
        history_meta_ttl=Seconds(100),
        force_recovery=True,
    )
    harness = NodeHarness(options)
    harness.publish("news", Raw(b"1"))
    harness.clock.advance(50)
    client = harness.connect("ann")
    since = {"channel": "news", "recover": True, "offset": 1, "epoch": "epoch1"}
    assert client.request("subscribe", **since)["recovered"] is True
    client.request("unsubscribe", channel="news")
    harness.clock.advance(100)
    result = client.request("subscribe", **since)
    assert ("recovered" in result, result["epoch"]) == (False, "epoch2")
