"""Filters of subscriptions (section 12 of the protocol reference), and strategies in connect.subs."""

from __future__ import annotations

from typing import Any

import pytest

from beaconfire.base.units import Seconds
from beaconfire.delivery.tags_filter import DEPTH_MAX
from beaconfire.model.events import RecoveryFinished
from beaconfire.model.identity import Identity
from tests.unit.kit import NodeHarness
from tests.unit.session.operations.strategies import WANTED, data_and_left_out, publish, pushed, with_strategy


def test_filtered_subscription_gets_only_passing_publications() -> None:
    """Other subscriptions and history have all publications."""
    harness = NodeHarness(with_strategy())
    filtered, other = harness.connect("ann"), harness.connect("bob", "news")
    filtered.request("subscribe", channel="news", tf=WANTED)
    publish(harness, "wanted", "unwanted", "wanted")
    assert [publication["offset"] for publication in pushed(filtered)] == [1, 3]
    assert [publication["offset"] for publication in pushed(other)] == [1, 2, 3]
    assert len(filtered.request("history", channel="news", limit=10)["publications"]) == 3
    assert harness.node.statistics().filtered_total == 1


def test_filter_needs_no_history() -> None:
    """It works in channels without history."""
    harness = NodeHarness(with_strategy(history_size=0, history_ttl=Seconds(0), force_recovery=False))
    client = harness.connect("ann")
    client.request("subscribe", channel="news", tf={"op": "not", "nodes": [WANTED]})
    publish(harness, "wanted", "unwanted")
    harness.publish("news", "untagged")
    assert [publication["data"] for publication in pushed(client)] == ["unwanted", "untagged"]


def test_filtered_publications_move_the_position() -> None:
    """They are no gap, neither for live publications nor for the comparison of positions."""
    harness = NodeHarness(with_strategy())
    client = harness.connect("ann")
    client.request("subscribe", channel="news", tf=WANTED)
    publish(harness, "unwanted", "unwanted")
    assert pushed(client) == []
    [subscription] = harness.node.hub.subscribers("news")
    assert subscription.position == (2, "epoch1")
    publish(harness, "wanted")
    assert [publication["offset"] for publication in pushed(client)] == [3]


RECOVERED: list[tuple[str, list[str], list[int], int]] = [
    ("some pass", ["wanted", "unwanted", "wanted", "unwanted"], [1, 3], 0),
    ("none passes, and the position is the top", ["unwanted", "unwanted"], [], 2),
    ("nothing was missed", [], [], 0),
]


@pytest.mark.parametrize(("case", "kinds", "offsets", "offset"), RECOVERED, ids=[row[0] for row in RECOVERED])
def test_recovery_is_filtered(case: str, kinds: list[str], offsets: list[int], offset: int) -> None:
    """All missed publications count as recovered, and only those that pass are sent."""
    harness = NodeHarness(with_strategy())
    publish(harness, *kinds)
    client = harness.connect("ann")
    result = client.request("subscribe", channel="news", tf=WANTED, recover=True, offset=0, epoch="")
    assert result["recovered"] is True
    assert [publication["offset"] for publication in result.get("publications", [])] == offsets
    assert result.get("offset", 0) == offset
    [event] = harness.recorder.of(RecoveryFinished)
    assert (event.recovered, event.publications) == (True, len(offsets))


def test_continuity_is_checked_before_filtering() -> None:
    """A filter does not hide lost publications."""
    harness = NodeHarness(with_strategy(history_size=2))
    publish(harness, "wanted", "unwanted", "unwanted", "unwanted")
    client = harness.connect("ann")
    result = client.request("subscribe", channel="news", tf=WANTED, recover=True, offset=1, epoch="epoch1")
    assert "recovered" not in result
    assert result["offset"] == 4


@pytest.mark.parametrize(("latest", "given"), [("wanted", ["wanted"]), ("unwanted", [])])
def test_cache_recovery_is_filtered(latest: str, given: list[str]) -> None:
    """The latest publication is recovered, and sent if it passes."""
    harness = NodeHarness(with_strategy(force_recovery_mode="cache"))
    publish(harness, "wanted", latest)
    client = harness.connect("ann")
    result = client.request("subscribe", channel="news", tf=WANTED, recover=True, offset=0, epoch="")
    assert result["recovered"] is True
    assert [publication["data"] for publication in result.get("publications", [])] == given


@pytest.mark.parametrize("wrong", [{}, {"key": "k", "cmp": "like"}, {"op": "and"}])
def test_invalid_filter_is_error_107(wrong: dict[str, Any]) -> None:
    """The client is not subscribed."""
    harness = NodeHarness(with_strategy(), debug_reasons=True)
    client = harness.connect("ann")
    reply = client.request_reply("subscribe", channel="news", tf=wrong)
    assert reply["error"]["code"] == 107
    assert "tf" in reply["error"]["message"]
    assert not harness.node.hub.has_subscribers("news")


def test_filter_limits_are_error_107_and_counted() -> None:
    """Each under its own name."""
    harness = NodeHarness(with_strategy(), tags_filter_max_nodes=20, tags_filter_max_values=3)
    client = harness.connect("ann")
    deep: dict[str, Any] = WANTED
    for _ in range(DEPTH_MAX):
        deep = {"op": "not", "nodes": [deep]}
    for wrong in ({"op": "or", "nodes": [WANTED] * 20}, {"key": "k", "cmp": "in", "vals": list("abcd")}, deep):
        assert client.request_code("subscribe", channel="news", tf=wrong) == 107
    limits = ["client.tags_filter_max_nodes", "client.tags_filter_max_values", "tags_filter_depth_max"]
    assert harness.recorder.limits() == limits


def test_connect_subs_may_have_filters_and_conflation() -> None:
    """Unidirectional clients have no other request."""
    harness = NodeHarness(with_strategy(), debug_reasons=True)
    harness.tokens.connections.known["ann"] = Identity(user="ann")
    client = harness.open_session()
    subs = {"news": {"tf": WANTED}, "rates": {"conflate": {"max_rate": 1}}}
    client.request("connect", token="ann", subs=subs)
    publish(harness, "unwanted", "wanted")
    harness.publish("rates", 1, 2)
    assert data_and_left_out(pushed(client)) == [("wanted", 0), (2, 1)]


def test_connect_with_a_filter_that_is_not_allowed_is_error_107() -> None:
    """Like subscribe."""
    harness = NodeHarness(with_strategy(allow_tags_filter=False))
    harness.tokens.connections.known["ann"] = Identity(user="ann")
    client = harness.open_session()
    assert client.request_code("connect", token="ann", subs={"news": {"tf": WANTED}}) == 107
    assert not harness.node.hub.has_subscribers("news")
