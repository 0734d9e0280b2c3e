"""Ids of events, and recovery from them."""

from __future__ import annotations

import json

import pytest

from beaconfire.transports.streams.event_ids import ID_BYTES_MAX, event_id, resume


def test_last_event_gets_the_id() -> None:
    """Within the block of that event: a client that did not receive its end does not have the id either."""
    data = event_id(b"data: 1\n\ndata: 2\n\n", {"news": (7, "e")})
    assert data == b'data: 1\n\ndata: 2\nid: {"news":[7,"e"]}\n\n'


def test_no_id_without_positions() -> None:
    """If no channel has a position, the events are unchanged."""
    assert event_id(b"data: 1\n\n", {}) == b"data: 1\n\n"


def test_ids_are_ascii_and_on_one_line() -> None:
    """Because an id is sent back in a header."""
    data = event_id(b"data: 1\n\n", {"комната\n": (1, "e")})
    assert data.isascii()
    assert data.count(b"\n") == 3


def test_too_large_id_is_omitted() -> None:
    """The client then recovers from an earlier id, with more repeated events."""
    assert event_id(b"data: 1\n\n", {"x" * ID_BYTES_MAX: (1, "e")}) == b"data: 1\n\n"


def test_positions_of_an_id_are_requested() -> None:
    """A reconnecting client recovers from the positions of its last id."""
    positions = {"новости": (7, "abc"), "b": (0, "d")}
    last_id = event_id(b"data: 1\n\n", positions).split(b"id: ")[1].strip().decode()
    assert json.loads(resume(b"", last_id)) == {
        "subs": {
            name: {"recover": True, "offset": offset, "epoch": epoch} for name, (offset, epoch) in positions.items()
        }
    }


def test_other_fields_of_the_request_are_kept() -> None:
    """Positions in the request are older than the id and are replaced. The token of a channel is kept."""
    connect_request = b'{"token":"t","subs":{"a":{},"b":{"token":"s","recover":true,"offset":1,"epoch":"e"},"c":1}}'
    resumed = json.loads(resume(connect_request, '{"b":[9,"e"],"c":[1,"e"]}'))
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
def test_foreign_ids_are_ignored(last_id: str) -> None:
    """From another server or an attacker."""
    assert resume(b'{"token":"t"}', last_id) == b'{"token":"t"}'


@pytest.mark.parametrize("connect_request", [b"[]", b"{", b"1", b"\xff", b'{"x":"\xff"}', b'{"x":' + b"[" * 5000])
def test_invalid_request_is_not_changed(connect_request: bytes) -> None:
    """The protocol reports the error."""
    assert resume(connect_request, '{"a":[1,"e"]}') == connect_request
