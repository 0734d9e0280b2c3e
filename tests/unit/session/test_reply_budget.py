"""How many publications one reply holds, from estimates before encoding."""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.results import HistoryResult, PresenceResult
from beaconfire.session.reply_budget import PUBLICATION_BYTES, ReplyBudget, client_info_size

INFO = ClientInfo("ann" * 20, "client" * 6, Raw(b'{"name":"Ann"}'), Raw(b'"guest"'))
PUBLICATIONS = [
    Publication(Raw(b"1"), None, 1),
    Publication(Raw(json.dumps("x" * 5000).encode()), INFO, 2**53, {"kind": "long", "of": "tags"}),
]


def sized(*sizes: int) -> list[Publication]:
    """Publications whose estimated sizes are these."""
    return [Publication(Raw(b"x" * (size - PUBLICATION_BYTES)), None, number) for number, size in enumerate(sizes, 1)]


@pytest.mark.parametrize("publication", PUBLICATIONS)
def test_estimated_sizes_are_close_to_encoded_sizes(publication: Publication) -> None:
    """A smaller estimate would bound nothing, and a much larger one would cut replies that fit."""
    page = [publication] * 100
    encoded = len(JsonCodec().encode_reply(1, HistoryResult(page, "epoch", 1)).data)
    assert len(ReplyBudget(int(encoded * 0.9)).take(page)) < 100
    assert len(ReplyBudget(int(encoded * 1.5) + 100 * PUBLICATION_BYTES).take(page)) == 100


def test_estimated_sizes_of_presence_are_close_to_encoded_sizes() -> None:
    """Each entry has the client id as its key."""
    presence = {f"{number:036}": ClientInfo("ann", f"{number:036}", INFO.conn_info) for number in range(100)}
    size = sum(map(client_info_size, presence.values()))
    encoded = len(JsonCodec().encode_reply(1, PresenceResult(presence)).data)
    assert encoded * 0.7 < size < encoded * 1.5


def test_first_publications_that_fit_are_taken() -> None:
    """A reply of exactly the limit fits."""
    assert ReplyBudget(300).take(sized(100, 100, 100)) == sized(100, 100, 100)
    assert ReplyBudget(299).take(sized(100, 100, 100)) == sized(100, 100)


def test_the_first_publication_always_fits() -> None:
    """Otherwise a client with a larger publication could never continue."""
    assert ReplyBudget(10).take(sized(100, 100)) == sized(100)


def test_channels_of_one_reply_share_a_budget() -> None:
    """Only the first publication of the whole reply always fits."""
    budget = ReplyBudget(250)
    assert budget.take([]) == []
    assert budget.take(sized(100, 100)) == sized(100, 100)
    assert budget.take(sized(100)) == []
    assert budget.take(sized(70)) == []
