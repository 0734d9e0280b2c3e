"""The headers and cookies of the request that opened a connection."""

from __future__ import annotations

import pytest

from beaconfire.model.handshake import Handshake, decode_headers


def test_headers_are_found_by_any_spelling_of_their_name() -> None:
    """A missing header is None, an empty one is an empty text."""
    handshake = Handshake("websocket", headers={"user-agent": "curl", "x-empty": ""})
    assert [handshake.header(name) for name in ("User-Agent", "user-agent", "X-EMPTY", "accept")] == [
        "curl",
        "curl",
        "",
        None,
    ]


def test_repeated_headers_are_joined() -> None:
    """With a comma, but cookies with a semicolon, as if the request had one header. Values are trimmed."""
    fields = [
        (b"x-a", b"1"),
        (b"cookie", b"a=1"),
        (b"x-a", b" 2\t"),
        (b"cookie", b"b=2"),
        (b"x-city", b"Z\xfcrich"),
        (b"x-a", b""),
    ]
    assert decode_headers(fields) == {"x-a": "1, 2, ", "cookie": "a=1; b=2", "x-city": "Zürich"}


@pytest.mark.parametrize(
    ("header", "cookies"),
    [
        ("", {}),
        ("session=abc", {"session": "abc"}),
        ("a=1; b = 2 ;c=", {"a": "1", "b": "2", "c": ""}),
        ('a="quoted; b=2', {"a": '"quoted', "b": "2"}),
        ('a="x y"; b=1=2', {"a": "x y", "b": "1=2"}),
        ("a=1; a=2; flag;; =x", {"a": "2", "": "x"}),
    ],
)
def test_cookies(header: str, cookies: dict[str, str]) -> None:
    """Read as Django and Starlette read them; a part without an equals sign is no cookie."""
    assert Handshake("websocket", headers={"cookie": header}).cookies == cookies


def test_request_without_cookies() -> None:
    """A request without the header has none."""
    assert Handshake("websocket").cookies == {}


@pytest.mark.timeout(4)
@pytest.mark.parametrize("filler", ["\\", '\\"', "\\101", '\\"a', "a"])
def test_cookies_are_read_in_linear_time(filler: str) -> None:
    """A client needs no token to send a large one. Escapes are those of `http.cookies`."""
    quoted = filler * (64_000 // len(filler))
    found = Handshake("websocket", headers={"cookie": f'name="{quoted}"'}).cookies["name"]
    assert found == {"\\": "\\", '\\"': '"', "\\101": "A", '\\"a': '"a', "a": "a"}[filler] * (
        32_000 if filler == "\\" else 64_000 // len(filler)
    )
