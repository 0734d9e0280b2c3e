"""Presence and history: section 13 of the protocol reference."""

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
def test_checks_come_in_order(method: str, channel: str, code: int) -> None:
    """Channel, namespace, whether there is such a thing at all, and then permission."""
    harness = NodeHarness(OPEN, {"closed": CLOSED})
    assert harness.connect("ann").request_code(method, channel=channel) == code


def test_presence_shows_who_is_here() -> None:
    """By client id; the numbers count the nameless as one user."""
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


def test_presence_of_an_empty_channel_is_still_there() -> None:
    """Zeros and an empty map are written."""
    harness = NodeHarness(ChannelOptions(presence=True, allow_presence_for_client=True))
    client = harness.connect("ann")
    assert client.request("presence", channel="news") == {"presence": {}}
    assert client.request("presence_stats", channel="news") == {"num_clients": 0, "num_users": 0}


def page(harness: NodeHarness, **fields: Any) -> list[int]:
    """The data of the publications of a page of the channel `news`."""
    found = harness.connect("ann").request("history", channel="news", **fields)
    assert (found["offset"], found["epoch"]) == (5, "epoch1"), "the top, whatever the page"
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
def test_pages(fields: dict[str, Any], expected: list[int]) -> None:
    """No limit is the position only; a negative one and one too large are cut; since is exclusive both ways."""
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
def test_pages_that_cannot_be(fields: dict[str, Any], code: int) -> None:
    """Before nothing, and of a stream that is no more."""
    harness = NodeHarness(RECOVERABLE)
    harness.publish("news", 1, 2)
    assert harness.connect("ann").request_code("history", channel="news", **fields) == code


def test_limits_are_cut_and_counted() -> None:
    """Exactly the limit is not cut, and "as many as there may be" is no request for more."""
    harness = NodeHarness(RECOVERABLE, history_max_publication_limit=3)
    client = harness.connect("ann")
    client.request("history", channel="news", limit=3)
    assert harness.recorder.limits() == []
    client.request("history", channel="news", limit=4)
    client.request("history", channel="news", limit=-1)
    assert harness.recorder.limits() == ["client.history_max_publication_limit"]


def test_pages_are_cut_to_what_fits_into_a_reply() -> None:
    """The client goes on from the last publication that it got, forward or backward, until it has them all."""
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


def test_a_publication_larger_than_a_reply_can_still_be_read() -> None:
    """Alone in its reply."""
    harness = NodeHarness(RECOVERABLE, reply_max_size=Size(100))
    harness.publish("news", "x" * 1000, "y" * 1000)
    page = harness.connect("ann").request("history", channel="news", limit=10)
    assert [publication["data"][0] for publication in page["publications"]] == ["x"]


def test_a_reply_is_never_larger_than_what_may_wait() -> None:
    """Or it alone would end the sessions of clients that read slowly."""
    harness = NodeHarness(RECOVERABLE, queue_max_size=Size(400))
    harness.publish("news", *["x" * 100] * 7)
    assert len(harness.connect("ann").request("history", channel="news", limit=10)["publications"]) == 2


def test_presence_that_does_not_fit_into_a_reply_is_refused() -> None:
    """With 106: a part of it would say that the others are gone. The counts are always to be had."""
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


def test_a_channel_never_used_has_a_position() -> None:
    """Offset 0 in a stream that begins with the question; it keeps its epoch."""
    client = NodeHarness(RECOVERABLE).connect("ann")
    for _ in range(2):
        assert client.request("history", channel="news", limit=1) == {
            "publications": [],
            "offset": 0,
            "epoch": "epoch1",
        }


def test_history_may_be_for_subscribers() -> None:
    """While they are in."""
    harness = NodeHarness(
        ChannelOptions(
            allow_subscribe_for_client=True, allow_history_for_subscriber=True, history_size=5, history_ttl=Seconds(60)
        )
    )
    client = harness.connect("ann")
    assert client.request_code("history", channel="news") == 103
    client.request("subscribe", channel="news")
    assert client.request_code("history", channel="news") == 0


def test_the_publication_is_whole() -> None:
    """Data, who published, offset, and the epoch with the first."""
    harness = NodeHarness(RECOVERABLE)
    client = harness.connect("ann")
    client.request("publish", channel="news", data={"a": 1})
    harness.publish("news", 2, tags={"k": "v"})
    assert client.request("history", channel="news", limit=5)["publications"] == [
        {"data": {"a": 1}, "offset": 1, "epoch": "epoch1", "info": {"user": "ann", "client": client.id}},
        {"data": 2, "offset": 2, "tags": {"k": "v"}},
    ]
