"""Ids of events, and what becomes of them."""

from __future__ import annotations

import json

import pytest

from beaconfire.transports.streams.event_ids import ID_BYTES_MAX, event_id, resume


def test_the_last_event_gets_the_id() -> None:
    """It stands within that event's block: whoever did not see its end does not have the id either."""
    data = event_id(b"data: 1\n\ndata: 2\n\n", {"news": (7, "e")})
    assert data == b'data: 1\n\ndata: 2\nid: {"news":[7,"e"]}\n\n'


def test_nothing_to_recover_needs_no_id() -> None:
    """Where no channel has a position, events are as they were."""
    assert event_id(b"data: 1\n\n", {}) == b"data: 1\n\n"


def test_ids_are_ascii_and_on_one_line() -> None:
    """A header can hold nothing else."""
    data = event_id(b"data: 1\n\n", {"комната\n": (1, "e")})
    assert data.isascii()
    assert data.count(b"\n") == 3


def test_an_id_that_fits_in_no_header_is_left_out() -> None:
    """Then an earlier one counts, from which more is sent again."""
    assert event_id(b"data: 1\n\n", {"x" * ID_BYTES_MAX: (1, "e")}) == b"data: 1\n\n"


def test_round_trip() -> None:
    """What an event says of positions, a listener asks for when it comes back."""
    positions = {"новости": (7, "abc"), "b": (0, "d")}
    last_id = event_id(b"data: 1\n\n", positions).split(b"id: ")[1].strip().decode()
    assert json.loads(resume(b"", last_id)) == {
        "subs": {
            name: {"recover": True, "offset": offset, "epoch": epoch} for name, (offset, epoch) in positions.items()
        }
    }


def test_the_request_stays_as_it_is_otherwise() -> None:
    """Its own idea of a position is older than the id's; a channel's token is needed as before."""
    opening = b'{"token":"t","subs":{"a":{},"b":{"token":"s","recover":true,"offset":1,"epoch":"e"},"c":1}}'
    resumed = json.loads(resume(opening, '{"b":[9,"e"],"c":[1,"e"]}'))
    assert resumed.pop("token") == "t"
    assert resumed == {
        "subs": {
            "a": {},
            "b": {"token": "s", "recover": True, "offset": 9, "epoch": "e"},
            "c": {"recover": True, "offset": 1, "epoch": "e"},
        }
    }


FOREIGN = (
    "42",
    '"5"',
    "null",
    "{}x",
    "[]",
    "[1]",
    "\xff",
    '{"a":1}',
    '{"a":null}',
    '{"a":[]}',
    '{"a":["x","y"]}',
    '{"a":[1,5]}',
    '{"a":[1,null]}',
    '{"a":[1,"e",2]}',
    '{"a":[1.5,"e"]}',
    '{"a":[true,"e"]}',
    '{"a":[-1,"e"]}',
    '{"a":[9223372036854775808,"e"]}',
    '{"a":[18446744073709551616,"e"]}',
    '{"a":[1%s,"e"]}' % ("0" * 400),
    '{"a":[1,"e"],"b":[-1,"e"]}',
    '{"a":' + "[" * 5000,
)


@pytest.mark.parametrize("last_id", FOREIGN)
def test_ids_of_others_change_nothing(last_id: str) -> None:
    """Another server made them, or somebody who tries."""
    assert resume(b'{"token":"t"}', last_id) == b'{"token":"t"}'


@pytest.mark.parametrize("opening", [b"[]", b"{", b"1", b"\xff", b'{"x":"\xff"}', b'{"x":' + b"[" * 5000])
def test_what_is_wrong_with_a_request_is_left_to_the_protocol(opening: bytes) -> None:
    """It comes out as it went in."""
    assert resume(opening, '{"a":[1,"e"]}') == opening
