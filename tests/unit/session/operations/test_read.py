"""The commands presence, presence_stats and history: section 13 of the protocol reference."""

from __future__ import annotations

from typing import Any

import pytest

from beaconfire.base.units import Seconds, Size
from beaconfire.channels.options import ChannelOptions
from tests.unit.kit import OPEN, RECOVERABLE, NodeHarness

PRESENCE_FOR_SUBSCRIBERS = ChannelOptions(
    allow_subscribe_for_client=True, presence=True, allow_presence_for_subscriber=True
)
CLOSED = ChannelOptions(presence=True, history_size=5, history_ttl=Seconds(60))


@pytest.mark.parametrize("method", ["presence", "presence_stats", "history"])
@pytest.mark.parametrize(("channel", "code"), [("", 3501), ("nowhere:x", 102), ("news", 108), ("closed:x", 103)])
def test_read_commands_check_their_request_in_order(method: str, channel: str, code: int) -> None:
    """Channel, namespace, availability, and then permission."""
    harness = NodeHarness(OPEN, {"closed": CLOSED})
    assert harness.connect("ann").request_code(method, channel=channel) == code


def test_presence_has_every_client_of_the_channel() -> None:
    """By client id. In presence_stats, users are counted once."""
    harness = NodeHarness(PRESENCE_FOR_SUBSCRIBERS)
    ann, again, bob = harness.connect("ann", "news"), harness.connect("ann", "news"), harness.connect("bob", "news")
    assert bob.request("presence", channel="news") == {
        "presence": {
            ann.id: {"user": "ann", "client": ann.id},
            again.id: {"user": "ann", "client": again.id},
            bob.id: {"user": "bob", "client": bob.id},
        }
    }
    assert bob.request("presence_stats", channel="news") == {"num_clients": 3, "num_users": 2}
    bob.request("unsubscribe", channel="news")
    assert ann.request("presence_stats", channel="news") == {"num_clients": 2, "num_users": 1}
    assert bob.request_code("presence", channel="news") == 103


def test_presence_of_an_empty_channel_is_written() -> None:
    """Zeros and an empty map are not left out."""
    harness = NodeHarness(ChannelOptions(presence=True, allow_presence_for_client=True))
    client = harness.connect("ann")
    assert client.request("presence", channel="news") == {"presence": {}}
    assert client.request("presence_stats", channel="news") == {"num_clients": 0, "num_users": 0}


def page(harness: NodeHarness, **fields: Any) -> list[int]:
    """The data of the publications of one history page of the channel `news`."""
    found = harness.connect("ann").request("history", channel="news", **fields)
    assert (found["offset"], found["epoch"]) == (5, "epoch1"), "the top of the stream"
    return [publication["data"] for publication in found["publications"]]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"limit": 0}, []),
        ({"limit": 2}, [1, 2]),
        ({"limit": -1}, [1, 2, 3]),
        ({"limit": 100}, [1, 2, 3]),
        ({"limit": 2, "reverse": True}, [5, 4]),
        ({"limit": 2, "since": {"offset": 1}}, [2, 3]),
        ({"limit": 2, "since": {"offset": 1, "epoch": "epoch1"}}, [2, 3]),
        ({"limit": 2, "since": {"offset": 5, "epoch": "epoch1"}}, []),
        ({"limit": 2, "since": {"offset": 3}, "reverse": True}, [2, 1]),
        ({"limit": 2, "since": {"offset": 1}, "reverse": True}, []),
        ({"limit": 0, "since": {"offset": 1, "epoch": "epoch1"}}, []),
    ],
)
def test_history_pages(fields: dict[str, Any], expected: list[int]) -> None:
    """Limit 0 is the position only.

    A negative limit and one that is too large are cut. `since` is exclusive in both directions.
    """
    harness = NodeHarness(RECOVERABLE, history_max_publication_limit=3)
    harness.publish("news", 1, 2, 3, 4, 5)
    assert page(harness, **fields) == expected


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"since": {"offset": 0}, "reverse": True, "limit": 1}, 107),
        ({"since": {"epoch": "epoch1"}, "reverse": True, "limit": 1}, 107),
        ({"since": {"offset": 0}, "limit": 1}, 0),
        ({"since": {"offset": 1, "epoch": "other"}, "limit": 1}, 112),
        ({"since": {"offset": 1, "epoch": "other"}}, 112),
        ({"since": {"offset": 1, "epoch": "_"}, "limit": 1}, 112),
    ],
)
def test_impossible_history_pages_are_errors(fields: dict[str, Any], code: int) -> None:
    """Before offset 0, and of another epoch."""
    harness = NodeHarness(RECOVERABLE)
    harness.publish("news", 1, 2)
    assert harness.connect("ann").request_code("history", channel="news", **fields) == code


def test_larger_history_limits_are_cut_and_counted() -> None:
    """The limit itself is not cut, and a negative limit does not exceed it."""
    harness = NodeHarness(RECOVERABLE, history_max_publication_limit=3)
    client = harness.connect("ann")
    client.request("history", channel="news", limit=3)
    assert harness.recorder.limits() == []
    client.request("history", channel="news", limit=4)
    client.request("history", channel="news", limit=-1)
    assert harness.recorder.limits() == ["client.history_max_publication_limit"]


def test_history_pages_are_cut_to_the_reply_size() -> None:
    """The client continues after the last publication, forward or backward, until it has all of them."""
    harness = NodeHarness(RECOVERABLE, reply_max_size=Size(400))
    harness.publish("news", *["x" * 100] * 7)
    client = harness.connect("ann")
    for reverse, start, expected in ((False, None, [1, 2, 3, 4, 5, 6, 7]), (True, None, [7, 6, 5, 4, 3, 2, 1])):
        found: list[int] = []
        since = start
        while len(found) < 7:
            fields: dict[str, Any] = {"since": since} if since is not None else {}
            page = client.request("history", channel="news", limit=-1, reverse=reverse, **fields)
            assert 0 < len(page["publications"]) <= 3
            assert page["offset"] == 7
            found += [publication["offset"] for publication in page["publications"]]
            since = {"offset": found[-1], "epoch": page["epoch"]}
        assert found == expected
    assert set(harness.recorder.limits()) == {"client.reply_max_size"}


def test_publication_larger_than_the_reply_size_can_be_read() -> None:
    """Alone in its reply."""
    harness = NodeHarness(RECOVERABLE, reply_max_size=Size(100))
    harness.publish("news", "x" * 1000, "y" * 1000)
    page = harness.connect("ann").request("history", channel="news", limit=10)
    assert [publication["data"][0] for publication in page["publications"]] == ["x"]


def test_reply_is_never_larger_than_the_outbox() -> None:
    """Otherwise the reply alone would disconnect a client that reads slowly."""
    harness = NodeHarness(RECOVERABLE, queue_max_size=Size(400))
    harness.publish("news", *["x" * 100] * 7)
    assert len(harness.connect("ann").request("history", channel="news", limit=10)["publications"]) == 2


def test_presence_larger_than_the_reply_size_is_error_106() -> None:
    """In a part of it, the other clients would look absent. presence_stats is always available."""
    harness = NodeHarness(
        ChannelOptions(allow_subscribe_for_client=True, allow_presence_for_client=True, presence=True),
        reply_max_size=Size(200),
    )
    clients = [harness.connect(user, "news") for user in ("ann", "bob")]
    assert len(clients[0].request("presence", channel="news")["presence"]) == 2
    harness.connect("cat" * 30, "news")
    assert clients[0].request_code("presence", channel="news") == 106
    assert clients[0].request("presence_stats", channel="news") == {"num_clients": 3, "num_users": 3}
    assert harness.recorder.limits() == ["client.reply_max_size"]


def test_unused_channel_has_a_position() -> None:
    """Offset 0 in a stream that the command creates. Its epoch stays."""
    client = NodeHarness(RECOVERABLE).connect("ann")
    for _ in range(2):
        assert client.request("history", channel="news", limit=1) == {
            "publications": [],
            "offset": 0,
            "epoch": "epoch1",
        }


def test_history_permission_for_subscribers_ends_with_the_subscription() -> None:
    """`allow_history_for_subscriber`."""
    harness = NodeHarness(
        ChannelOptions(
            allow_subscribe_for_client=True, allow_history_for_subscriber=True, history_size=5, history_ttl=Seconds(60)
        )
    )
    client = harness.connect("ann")
    assert client.request_code("history", channel="news") == 103
    client.request("subscribe", channel="news")
    assert client.request_code("history", channel="news") == 0


def test_history_publications_are_complete() -> None:
    """Data, info, tags, offset, and the epoch in the first publication."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann")
    client.request("publish", channel="news", data={"a": 1})
    harness.publish("news", 2, tags={"k": "v"})
    assert client.request("history", channel="news", limit=5)["publications"] == [
        {"data": {"a": 1}, "offset": 1, "epoch": "epoch1", "info": {"user": "ann", "client": client.id}},
        {"data": 2, "offset": 2, "tags": {"k": "v"}},
    ]
