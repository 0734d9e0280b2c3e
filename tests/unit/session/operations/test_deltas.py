"""Deltas of subscriptions: section 11 of the protocol reference."""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from beaconfire.base.units import Seconds
from beaconfire.protocols.fossil import create
from tests.unit.kit import NodeHarness
from tests.unit.patching import chained_text as text
from tests.unit.session.operations.strategies import FOSSIL, WANTED, DeltaDecoder, pushed, with_strategy


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
