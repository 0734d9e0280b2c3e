"""Upgrade requests: reading, checks and responses."""

from __future__ import annotations

import pytest

from beaconfire.transports.port import ErrorResponse
from beaconfire.transports.request_reader import RequestReader
from beaconfire.transports.websocket.handshake import (
    HandshakeError,
    UpgradeRequest,
    accept_key,
    accept_response,
    encode_error_response,
    read_upgrade,
    upgrade_request,
)

VALID = {
    "host": "example.com",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def request(method: str = "GET", target: str = "/ws", **changed: str | None) -> UpgradeRequest:
    """A valid request with some headers changed, or removed by None. Underscores mean dashes."""
    headers = {**VALID, **{name.replace("_", "-"): value for name, value in changed.items()}}
    lines = [f"{name}: {value}\r\n" for name, value in headers.items() if value is not None]
    return parse("".join([f"{method} {target} HTTP/1.1\r\n", *lines, "\r\n"]).encode("latin-1"))


def parse(head: bytes) -> UpgradeRequest:
    """The request as the server reads it, whether or not it asks for an upgrade."""
    reader = RequestReader(len(head))
    assert reader.feed(head)
    return upgrade_request(reader)


def test_request_attributes() -> None:
    """Names in lower case, values trimmed, repeated headers joined, path decoded, query not decoded."""
    parsed = parse(
        b"GET /a%20b/%C3%A9?x=1&y=%20 HTTP/1.1\r\nHost: h:1\r\nORIGIN:  https://a.example \r\nX-A: 1\r\nx-a: 2\r\n\r\n"
    )
    assert (parsed.method, parsed.path, parsed.query) == ("GET", "/a b/é", "x=1&y=%20")
    assert (parsed.host, parsed.origin) == ("h:1", "https://a.example")
    assert parsed.headers["x-a"] == "1, 2"


def test_read_upgrade_returns_the_request_and_the_size_of_its_head() -> None:
    """None for another request, for an incomplete or too large head, and for bytes that are not HTTP."""
    head = b"GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    upgrade = read_upgrade(head, len(head))
    assert upgrade is not None
    assert (upgrade[0].path, upgrade[1]) == ("/ws", len(head))
    assert (read_upgrade(head + b"frames", 1000) or (None, 0))[1] == len(head)
    for data in (
        head[:-1],
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" + head,
        b"\x16\x03",
    ):
        assert read_upgrade(data, 1000) is None
    assert read_upgrade(head, len(head) - 1) is None


def test_origin_is_none_without_the_header() -> None:
    """A missing Origin header differs from an empty one."""
    assert request().origin is None
    assert request(origin="").origin == ""


@pytest.mark.parametrize(
    ("value", "offered"),
    [
        (None, ()),
        ("", ()),
        (" , ", ()),
        ("centrifuge-json", ("centrifuge-json",)),
        ("b , a,, c", ("b", "a", "c")),
    ],
)
def test_offered_subprotocols_in_order_of_preference(value: str | None, offered: tuple[str, ...]) -> None:
    """Some clients send an empty header, which offers nothing."""
    assert request(sec_websocket_protocol=value).subprotocols == offered


def test_query_parameters() -> None:
    """The first value, decoded. Empty for a missing parameter, and for a query of over 100 parameters."""
    parsed = request(target="/ws?a=1&a=2&b=%C3%A9+x&c=&d")
    assert [parsed.parameter(name) for name in "abcde"] == ["1", "é x", "", "", ""]
    assert request(target="/ws?" + "&".join(f"a{n}=1" for n in range(200))).parameter("a1") == ""


def test_accept_key() -> None:
    """The example of RFC 6455 section 1.3."""
    assert accept_key(request()) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    "changed",
    [
        {"connection": "keep-alive, Upgrade"},
        {"connection": "UPGRADE"},
        {"upgrade": "WebSocket"},
        {"upgrade": "h2c, websocket"},
        {"content_length": "0"},
    ],
)
def test_variants_of_clients_are_valid(changed: dict[str, str]) -> None:
    """Clients differ in lists and letter case (Firefox sends `keep-alive, Upgrade`)."""
    assert accept_key(request(**changed)) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"method": "POST"}, 405),
        ({"upgrade": None}, 400),
        ({"upgrade": "h2c"}, 400),
        ({"connection": None}, 400),
        ({"connection": "keep-alive"}, 400),
        ({"host": None}, 400),
        ({"host": ""}, 400),
        ({"host": "a, b"}, 400),
        ({"host": "a\r\nhost: "}, 400),
        ({"host": "a\r\nhost: a"}, 400),
        ({"host": "a/b"}, 400),
        ({"content_length": "5"}, 400),
        ({"transfer_encoding": "chunked"}, 400),
        ({"sec_websocket_version": None}, 426),
        ({"sec_websocket_version": "8"}, 426),
        ({"sec_websocket_version": "13, 8"}, 426),
        ({"sec_websocket_key": None}, 400),
        ({"sec_websocket_key": ""}, 400),
        ({"sec_websocket_key": "dGhlIHNhbXBsZQ=="}, 400),
        ({"sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ"}, 400),
        ({"sec_websocket_key": "*" * 24}, 400),
        ({"sec_websocket_key": "é" * 24}, 400),
        ({"sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ=="}, 400),
    ],
)
def test_invalid_handshakes_are_refused(changed: dict[str, str | None], status: int) -> None:
    """All conditions of RFC 6455 section 4.2.1 are checked. The label of the event is `bad`."""
    changed = dict(changed)
    method = changed.pop("method", None) or "GET"
    with pytest.raises(HandshakeError) as caught:
        accept_key(request(method, "/ws", **changed))
    assert (caught.value.response.status, caught.value.response.reason) == (status, "bad")


def test_http_1_0_is_refused() -> None:
    """RFC 6455 section 4.1 requires HTTP/1.1."""
    head = (
        b"GET /ws HTTP/1.0\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in VALID.items()) + b"\r\n"
    )
    with pytest.raises(HandshakeError) as caught:
        accept_key(parse(head))
    assert (caught.value.response.status, caught.value.response.reason) == (400, "bad")
    assert accept_key(parse(head.replace(b"HTTP/1.0", b"HTTP/1.1")))


def test_refused_version_gets_the_supported_one() -> None:
    """RFC 6455 section 4.4: the response lists the supported versions."""
    with pytest.raises(HandshakeError) as caught:
        accept_key(request(sec_websocket_version="25"))
    assert ("Sec-WebSocket-Version", "13") in caught.value.response.headers


def test_responses_are_complete_http() -> None:
    """The subprotocol header is sent only with a subprotocol, and an error response has a body and its length."""
    assert accept_response("key=", "").count(b"\r\n") == 5
    assert b"\r\nSec-WebSocket-Protocol: p\r\n" in accept_response("key=", "p")
    assert b"\r\nSec-WebSocket-Extensions: e; f\r\n" in accept_response("key=", "", "e; f")
    refused = encode_error_response(ErrorResponse(503, "limit", "full", (("Retry-After", "1"),)))
    head, _, body = refused.partition(b"\r\n\r\n")
    assert body == b"full\n"
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 503 Service Unavailable"
    assert {b"Content-Length: 5", b"Retry-After: 1", b"Connection: close"} <= set(lines)
