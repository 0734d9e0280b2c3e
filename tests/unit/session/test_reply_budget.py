"""What fits into one reply is known before it is encoded."""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.results import HistoryResult, PresenceResult
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.session.reply_budget import PUBLICATION_BYTES, ReplyBudget, client_info_size

INFO = ClientInfo("ann" * 20, "client" * 6, Raw(b'{"name":"Ann"}'), Raw(b'"guest"'))
PUBLICATIONS = [
    Publication(Raw(b"1"), None, 1),
    Publication(Raw(json.dumps("x" * 5000).encode()), INFO, 2**53, {"kind": "long", "of": "tags"}),
]


def sized(*sizes: int) -> list[Publication]:
    """Publications of these sizes."""
    return [Publication(Raw(b"x" * (size - PUBLICATION_BYTES)), None, number) for number, size in enumerate(sizes, 1)]


@pytest.mark.parametrize("publication", PUBLICATIONS)
def test_sizes_bound_what_is_encoded(publication: Publication) -> None:
    """An estimate below the truth would bound nothing, and one far above would cut what fits."""
    page = [publication] * 100
    encoded = len(JsonCodec().encode_reply(1, HistoryResult(page, "epoch", 1)).data)
    assert len(ReplyBudget(int(encoded * 0.9)).take(page)) < 100
    assert len(ReplyBudget(int(encoded * 1.5) + 100 * PUBLICATION_BYTES).take(page)) == 100


def test_sizes_of_presence_bound_what_is_encoded() -> None:
    """Each entry stands under its client's id."""
    presence = {f"{number:036}": ClientInfo("ann", f"{number:036}", INFO.conn_info) for number in range(100)}
    size = sum(map(client_info_size, presence.values()))
    encoded = len(JsonCodec().encode_reply(1, PresenceResult(presence)).data)
    assert encoded * 0.7 < size < encoded * 1.5


def test_what_fits_is_taken_from_the_front() -> None:
    """Exactly the limit fits."""
    assert ReplyBudget(300).take(sized(100, 100, 100)) == sized(100, 100, 100)
    assert ReplyBudget(299).take(sized(100, 100, 100)) == sized(100, 100)


def test_the_first_publication_always_fits() -> None:
    """However large it is: nothing else could ever follow it."""
    assert ReplyBudget(10).take(sized(100, 100)) == sized(100)


def test_one_reply_of_several_channels_has_one_budget() -> None:
    """What one takes the next has not; the one that fits always is the first of all."""
    budget = ReplyBudget(250)
    assert budget.take([]) == []
    assert budget.take(sized(100, 100)) == sized(100, 100)
    assert budget.take(sized(100)) == []
    assert budget.take(sized(70)) == []
