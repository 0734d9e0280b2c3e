"""News, and the positions of a client that polls."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.model.results import ConnectionStart, SubscriptionStart
from beaconfire.transports.polling.positions import ClientPosition, client_positions, has_news, next_subs

AT = StreamPosition(4, "e")
PUBLICATION = Publication(Raw(b"1"), offset=5)


def test_positions_are_those_of_valid_entries() -> None:
    """The session accepts more forms, and reports what is wrong with the others."""
    subs = {
        "full": b'{"recover":true,"offset":4,"epoch":"e","token":"t"}',
        "empty": b"{}",
        "null": b"null",
        "null_offset": b'{"recover":true,"offset":null}',
        "text": b'{"offset":"4"}',
    }
    assert client_positions({channel: Raw(entry) for channel, entry in subs.items()}) == {
        "full": ClientPosition(True, 4, "e"),
        "empty": ClientPosition(),
    }


@pytest.mark.parametrize(
    ("subscription", "position", "expected"),
    [
        (SubscriptionStart("news"), None, False),  # nothing to recover from
        (SubscriptionStart("news", AT, recoverable=False), ClientPosition(True, 3, "e"), False),
        (SubscriptionStart("news", AT, recoverable=True), None, True),  # the client has no position yet
        (SubscriptionStart("news", AT, True, True, recovered=True), ClientPosition(True, 4, "e"), False),
        (SubscriptionStart("news", AT, True, True, True, [PUBLICATION]), ClientPosition(True, 4, "e"), True),
        (SubscriptionStart("news", AT, True, True, recovered=False), ClientPosition(True, 4, "e"), False),
        (SubscriptionStart("news", AT, True, True, recovered=False), ClientPosition(True, 3, "e"), True),
        (SubscriptionStart("news", AT, True, True, recovered=False), ClientPosition(True, 4, "other"), True),
        (SubscriptionStart("news", AT, True), ClientPosition(False, 4, "e"), True),  # asks for a position
    ],
)
def test_what_is_news(subscription: SubscriptionStart, position: ClientPosition | None, expected: bool) -> None:
    """A client that has the publications and the position of a channel gets no response for it."""
    positions = {} if position is None else {"news": position}
    other = SubscriptionStart("other")
    assert has_news(ConnectionStart("c", subscriptions=[other, subscription]), positions) is expected


def test_next_subs_have_every_channel() -> None:
    """With the position that the response has reached, if the channel has one."""
    start = ConnectionStart("c", subscriptions=[SubscriptionStart("plain"), SubscriptionStart("news", AT, True)])
    assert next_subs(start, {"news": (7, "e"), "later": (1, "f")}) == {
        "plain": {},
        "news": {"recover": True, "offset": 7, "epoch": "e"},
        "later": {"recover": True, "offset": 1, "epoch": "f"},
    }
