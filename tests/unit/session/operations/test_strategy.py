"""Filters and deltas (sections 11 and 12 of the protocol reference) and conflation: permission, delivery, recovery."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.units import Seconds
from beaconfire.channels.options import ChannelOptions
from beaconfire.delivery.tags_filter import DEPTH_MAX
from beaconfire.model.events import RecoveryFinished
from beaconfire.model.identity import Identity
from beaconfire.protocols.fossil import create
from tests.unit.kit import HarnessClient, NodeHarness, settle
from tests.unit.patching import apply
from tests.unit.patching import chained_text as text

WANTED = {"key": "kind", "cmp": "eq", "val": "wanted"}
FOSSIL = {"delta": "fossil"}


def with_strategy(**options: Any) -> ChannelOptions:
    """A namespace that allows every strategy and recovery."""
    return ChannelOptions(
        **{
            "allow_subscribe_for_client": True,
            "allow_publish_for_client": True,
            "allow_history_for_client": True,
            "history_size": 10,
            "history_ttl": Seconds(300),
            "force_recovery": True,
            "allow_tags_filter": True,
            "allowed_delta_types": ["fossil"],
            "delta_publish": True,
            **options,
        }
    )


def pushed(client: HarnessClient) -> list[dict[str, Any]]:
    return [push["pub"] for push in client.receive_pushes()]


def publish(harness: NodeHarness, *kinds: str) -> None:
    for kind in kinds:
        harness.publish("news", kind, tags={"kind": kind})


class DeltaDecoder:
    """Applies the patches of one subscription, as an SDK does."""

    def __init__(self) -> None:
        self.base = b""
        self.patched: list[bool] = []

    def decode(self, publications: list[dict[str, Any]]) -> list[Any]:
        """The data of each publication. All data must be JSON strings."""
        data = []
        for publication in publications:
            data_text = publication["data"].encode()
            self.patched.append(publication.get("delta", False))
            self.base = apply(self.base, data_text) if self.patched[-1] else data_text
            data.append(json.loads(self.base))
        return data


# --- filters


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


# --- deltas


def test_publications_after_the_first_are_patches() -> None:
    """The result confirms deltas, and all data is JSON strings. Other subscriptions get whole publications."""
    harness = NodeHarness(with_strategy())
    client, other = harness.connect("ann"), harness.connect("bob", "news")
    assert client.request("subscribe", channel="news", **FOSSIL)["delta"] is True
    decoder = DeltaDecoder()
    for number in range(4):
        harness.publish("news", text(number))
        assert decoder.decode(pushed(client)) == [text(number)]
    assert decoder.patched == [False, True, True, True]
    assert [publication["data"] for publication in pushed(other)] == [text(number) for number in range(4)]
    assert harness.node.statistics().patches_total == 3


def test_publications_of_one_batch_are_patches_of_each_other() -> None:
    """Each one starts from the one before."""
    harness = NodeHarness(with_strategy())
    client = harness.connect("ann")
    client.request("subscribe", channel="news", **FOSSIL)
    decoder = DeltaDecoder()
    harness.publish("news", *map(text, range(5)))
    assert decoder.decode(pushed(client)) == [text(number) for number in range(5)]
    assert decoder.patched == [False, True, True, True, True]


@pytest.mark.parametrize(
    ("allowed", "requested", "granted"),
    [(["fossil"], "fossil", True), (["fossil"], "", False), ([], "fossil", False)],
)
def test_deltas_need_a_request_and_an_allowing_namespace(allowed: list[str], requested: str, granted: bool) -> None:
    """A request in another namespace is ignored, and the data is not a string."""
    harness = NodeHarness(with_strategy(allowed_delta_types=allowed, delta_publish=False))
    client = harness.connect("ann")
    assert client.request("subscribe", channel="news", delta=requested).get("delta", False) is granted
    harness.publish("news", text(1), delta=True)
    [publication] = pushed(client)
    assert publication["data"] == (json.dumps(text(1)) if granted else text(1))


@pytest.mark.parametrize(("option", "requested"), [(True, False), (False, True), (False, False)])
def test_publisher_decides_on_patches(option: bool, requested: bool) -> None:
    """The namespace for all publications, or a backend for one."""
    harness = NodeHarness(with_strategy(delta_publish=option))
    client = harness.connect("ann")
    client.request("subscribe", channel="news", **FOSSIL)
    decoder = DeltaDecoder()
    for number in range(3):
        harness.publish("news", text(number), delta=requested and number == 2)
    assert decoder.decode(pushed(client)) == [text(number) for number in range(3)]
    assert decoder.patched == [False, option, option or requested]


def test_recovery_is_sent_as_patches() -> None:
    """The first recovered publication is whole. The others and the first live one start from the one before."""
    harness = NodeHarness(with_strategy())
    harness.publish("news", *map(text, range(4)))
    client = harness.connect("ann")
    result = client.request("subscribe", channel="news", recover=True, offset=1, epoch="epoch1", **FOSSIL)
    decoder = DeltaDecoder()
    assert decoder.decode(result["publications"]) == [text(1), text(2), text(3)]
    assert result["offset"] == 1
    harness.publish("news", text(4), text(5))
    assert decoder.decode(pushed(client)) == [text(4), text(5)]
    assert decoder.patched == [False, True, True, True, True]


def test_first_publication_after_an_empty_recovery_is_whole() -> None:
    """The last publication that the client has may differ from the server's."""
    harness = NodeHarness(with_strategy())
    other = harness.connect("bob")
    other.request("subscribe", channel="news", **FOSSIL)
    harness.publish("news", text(0))
    client = harness.connect("ann")
    assert client.request("subscribe", channel="news", recover=True, offset=1, epoch="epoch1", **FOSSIL)["recovered"]
    harness.publish("news", text(1), text(2))
    decoder = DeltaDecoder()
    assert decoder.decode(pushed(client)) == [text(1), text(2)]
    assert decoder.patched == [False, True]


def test_publication_after_a_filtered_one_is_whole() -> None:
    """Neighbours are patches, live and recovered."""
    harness = NodeHarness(with_strategy())
    kinds = ["wanted", "wanted", "unwanted", "wanted", "wanted"]
    live = harness.connect("ann")
    live.request("subscribe", channel="news", tf=WANTED, **FOSSIL)
    for number, kind in enumerate(kinds):
        harness.publish("news", text(number), tags={"kind": kind})
    late = harness.connect("bob")
    result = late.request("subscribe", channel="news", tf=WANTED, recover=True, offset=0, epoch="epoch1", **FOSSIL)
    for publications in (pushed(live), result["publications"]):
        decoder = DeltaDecoder()
        assert decoder.decode(publications) == [text(0), text(1), text(3), text(4)]
        assert decoder.patched == [False, True, False, True]


def test_without_history_patches_start_from_the_previous_publication() -> None:
    """For a client that was excluded from that one, the next publication is whole."""
    harness = NodeHarness(with_strategy(history_size=0, history_ttl=Seconds(0), force_recovery=False))
    one, two = harness.connect("ann"), harness.connect("bob")
    for client in (one, two):
        client.request("subscribe", channel="news", **FOSSIL)
    harness.publish("news", text(0))
    harness.publish("news", text(1), exclude=(two.id,))
    harness.publish("news", text(2))
    decoders = DeltaDecoder(), DeltaDecoder()
    assert decoders[0].decode(pushed(one)) == [text(0), text(1), text(2)]
    assert decoders[1].decode(pushed(two)) == [text(0), text(2)]
    assert (decoders[0].patched, decoders[1].patched) == ([False, True, True], [False, False])


def test_publications_without_history_are_bases_of_patches() -> None:
    """The client keeps the last publication, whether it has an offset or not."""
    harness = NodeHarness(with_strategy())
    client = harness.connect("ann")
    client.request("subscribe", channel="news", **FOSSIL)
    for number in range(4):
        harness.publish("news", text(number), skip_history=number == 2)
    decoder = DeltaDecoder()
    assert decoder.decode(pushed(client)) == [text(number) for number in range(4)]
    assert decoder.patched == [False, True, True, True]


def test_history_is_never_patched() -> None:
    """A history page has the publications as they were published."""
    harness = NodeHarness(with_strategy())
    client = harness.connect("ann")
    client.request("subscribe", channel="news", **FOSSIL)
    harness.publish("news", text(0), text(1))
    page = client.request("history", channel="news", limit=10)
    assert [publication["data"] for publication in page["publications"]] == [text(0), text(1)]


def test_patch_that_splits_a_character_is_not_sent() -> None:
    """JSON is text, so the publication is sent whole."""
    harness = NodeHarness(with_strategy())
    client = harness.connect("ann")
    client.request("subscribe", channel="news", **FOSSIL)
    # The first of their two bytes is the same, so a copy ends inside the character.
    pair = ["0123456789abcde" + character + "x" * 60 for character in "éè"]
    texts = [json.dumps(value, ensure_ascii=False).encode() for value in pair]
    assert create(*texts) is not None
    for datum in texts:
        harness.publish("news", Raw(datum))
    decoder = DeltaDecoder()
    assert decoder.decode(pushed(client)) == pair
    assert decoder.patched == [False, False]


def test_empty_payload_is_null_with_deltas() -> None:
    """JSON clients parse the data as JSON, and empty data is not JSON."""
    harness = NodeHarness(with_strategy())
    client = harness.connect("ann")
    client.request("subscribe", channel="news", **FOSSIL)
    harness.publish("news", Raw(b""))
    assert pushed(client)[0]["data"] == "null"


def test_payload_that_is_not_json_ends_json_sessions_with_deltas() -> None:
    """With 3506, live and in a recovery."""
    harness = NodeHarness(with_strategy())
    client = harness.connect("ann")
    client.request("subscribe", channel="news", **FOSSIL)
    harness.publish("news", Raw(b"\xff"))
    harness.run_scheduled()
    assert client.disconnect_code == 3506
    other = harness.connect("bob")
    assert other.request_code("subscribe", channel="news", recover=True, offset=0, epoch="epoch1", **FOSSIL) == 3506
    assert not harness.node.hub.has_subscribers("news")


def test_server_side_subscriptions_have_no_strategy() -> None:
    """The server sends whole, unfiltered publications."""
    harness = NodeHarness(with_strategy(), user_personal_channel=True)
    client = harness.connect("ann")
    harness.publish("#ann", text(0), text(1), tags={"kind": "unwanted"})
    assert [publication["data"] for publication in pushed(client)] == [text(0), text(1)]


# --- conflation


def data_and_left_out(publications: list[dict[str, Any]]) -> list[tuple[Any, int]]:
    return [(publication["data"], publication.get("conflated", 0)) for publication in publications]


def test_conflated_subscription_gets_the_newest_publication_after_the_interval() -> None:
    """Conflation needs no permission, because it costs less."""
    harness = NodeHarness(with_strategy(allow_tags_filter=False, allowed_delta_types=[]))
    client, other = harness.connect("ann"), harness.connect("bob", "news")
    client.request("subscribe", channel="news", conflate={"max_rate": 2})
    harness.publish("news", *range(5))
    assert data_and_left_out(pushed(client)) == [(4, 4)]
    harness.publish("news", 5, 6)
    assert pushed(client) == []
    harness.advance_time(0.5)
    assert data_and_left_out(pushed(client)) == [(6, 1)]
    assert data_and_left_out(pushed(other)) == [(number, 0) for number in range(7)]
    assert harness.node.statistics().conflated_total == 5


def test_conflated_recovery_returns_the_newest_publication() -> None:
    """With the number of publications before it, if history has all of them. Then the rate applies."""
    harness = NodeHarness(with_strategy())
    harness.publish("news", *range(5))
    client = harness.connect("ann")
    position = {"recover": True, "offset": 1, "epoch": "epoch1"}
    result = client.request("subscribe", channel="news", conflate={"max_rate": 1}, **position)
    assert result["recovered"] is True
    assert data_and_left_out(result["publications"]) == [(4, 3)]
    harness.publish("news", 5)
    assert pushed(client) == []
    harness.advance_time(1.0)
    assert data_and_left_out(pushed(client)) == [(5, 0)]


def test_continuity_is_checked_before_conflation() -> None:
    """The newest publication always exists. The others are checked first."""
    harness = NodeHarness(with_strategy(history_size=2))
    harness.publish("news", *range(5))
    client = harness.connect("ann")
    result = client.request("subscribe", channel="news", conflate={}, recover=True, offset=1, epoch="epoch1")
    assert "recovered" not in result


def test_held_publications_are_conflated_after_the_reply() -> None:
    """If the reply had a publication, the newest held one is sent after the interval."""

    async def scenario(since: dict[str, Any], expected: list[tuple[Any, int]]) -> None:
        harness = NodeHarness(with_strategy(presence=True))
        harness.publish("news", "missed")
        client = harness.connect("ann")
        harness.calls.hold("presence_add")
        number = client.send("subscribe", channel="news", conflate={"max_rate": 1}, **since)
        await settle()
        harness.publish("news", 1, 2, 3)
        harness.run_scheduled()
        harness.calls.release("presence_add")
        await settle()
        reply, *pushes = client.receive()
        assert reply["id"] == number
        assert data_and_left_out([message["push"]["pub"] for message in pushes]) == expected
        harness.advance_time(1.0)
        assert data_and_left_out([message["push"]["pub"] for message in pushes] + pushed(client)) == [(3, 2)]

    asyncio.run(scenario({}, [(3, 2)]))
    asyncio.run(scenario({"recover": True, "offset": 0, "epoch": "epoch1"}, []))


def test_unwritable_connection_gets_the_newest_publication_later() -> None:
    """When it is writable again."""
    harness = NodeHarness(with_strategy())
    client = harness.connect("ann")
    client.request("subscribe", channel="news", conflate={})
    client.transport.writable = False
    harness.publish("news", *range(5))
    harness.run_scheduled()
    assert client.session.waiting_bytes == 0
    client.transport.writable = True
    client.session.on_writable()
    assert data_and_left_out(pushed(client)) == [(4, 4)]


def test_held_publication_that_is_not_json_ends_the_session_with_3506() -> None:
    """The held publications of its other channels are dropped."""
    harness = NodeHarness(with_strategy())
    client = harness.connect("ann")
    for channel in ("news", "more"):
        client.request("subscribe", channel=channel, conflate={})
    client.transport.writable = False
    harness.publish("news", Raw(b"\xff"))
    harness.publish("more", 1)
    harness.run_scheduled()
    client.transport.writable = True
    client.session.on_writable()
    harness.run_scheduled()
    assert client.disconnect_code == 3506


@pytest.mark.parametrize("rate", [-1, 0.001, 1001])
def test_rate_out_of_range_is_error_107(rate: float) -> None:
    """The client is not subscribed, and the detail has the range."""
    harness = NodeHarness(with_strategy(), debug_reasons=True)
    reply = harness.connect("ann").request_reply("subscribe", channel="news", conflate={"max_rate": rate})
    assert reply["error"]["code"] == 107
    assert "conflate.max_rate: expected 0, or 0.01 to 1000" in reply["error"]["message"]
    assert not harness.node.hub.has_subscribers("news")


# --- connect.subs


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


def test_position_does_not_include_held_publications() -> None:
    """A client that recovers from its position gets the newest publication."""
    harness = NodeHarness(with_strategy())
    client = harness.connect("ann")
    client.request("subscribe", channel="news", conflate={"max_rate": 1})
    harness.publish("news", 1)
    harness.run_scheduled()
    harness.publish("news", 2, 3)
    harness.run_scheduled()
    assert client.session.positions() == {"news": (1, "epoch1")}
    harness.advance_time(1.0)
    assert client.session.positions() == {"news": (3, "epoch1")}
