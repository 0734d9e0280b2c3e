"""Opening handshakes over a real connection."""

from __future__ import annotations

import time

import pytest

from beaconfire.model.events import HandshakeRefused
from beaconfire.transports.port import ErrorResponse

from .raw_client import ACCEPT, HEADERS, TEXT, RawClient, Received, client_frame, request
from .server import EchoServer


def changed(*changes: tuple[str, str | None]) -> tuple[tuple[str, str], ...]:
    """The default headers, some of them replaced, added, or removed by None."""
    headers: dict[str, str | None] = {**dict(HEADERS), **dict(changes)}
    return tuple((name, value) for name, value in headers.items() if value is not None)


def test_valid_handshake_is_accepted(server: EchoServer) -> None:
    """The response has the headers of RFC 6455 section 4.2.2, and no extension or subprotocol without an offer."""
    with RawClient(server.port) as peer:
        peer.send(request())
        status, headers = peer.response()
        assert status == 101
        assert headers.pop("upgrade").lower() == "websocket"
        assert headers.pop("connection").lower() == "upgrade"
        assert headers.pop("sec-websocket-accept") == ACCEPT
        assert headers == {}
        assert peer.exchange(client_frame(TEXT, b"x")) == [Received(TEXT, b"x")]


@pytest.mark.parametrize(
    "change",
    [
        ("Connection", "keep-alive, Upgrade"),
        ("Connection", "UPGRADE"),
        ("Upgrade", "WebSocket"),
        ("Upgrade", "h2c, WebSocket"),
        ("Sec-WebSocket-Protocol", ""),
        ("Sec-WebSocket-Protocol", "unknown"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
        ("Origin", "https://good.example"),
        ("Origin", "HTTPS://GOOD.EXAMPLE"),
        ("Cookie", "x" * 5000),
    ],
)
def test_variants_of_clients_are_accepted(server: EchoServer, change: tuple[str, str]) -> None:
    """Firefox's Connection header, empty subprotocols, offers that the server declines, long headers."""
    with RawClient(server.port) as peer:
        peer.send(request(headers=changed(change)))
        status, headers = peer.response()
        assert status == 101
        assert "sec-websocket-protocol" not in headers
        assert "sec-websocket-extensions" not in headers
        assert peer.exchange(client_frame(TEXT, b"x")) == [Received(TEXT, b"x")]


def test_header_names_are_case_insensitive(server: EchoServer) -> None:
    """Also if the request comes in several segments."""
    with RawClient(server.port) as peer:
        data = request(headers=tuple((name.upper(), value) for name, value in HEADERS))
        for at in range(0, len(data), 10):
            peer.send(data[at : at + 10])
        assert peer.response().status == 101


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("Sec-WebSocket-Key", None), 400),
        (("Sec-WebSocket-Key", "short"), 400),
        (("Sec-WebSocket-Version", None), 426),
        (("Sec-WebSocket-Version", "8"), 426),
        (("Host", None), 400),
        (("Origin", "https://evil.example"), 403),
        (("Origin", "null"), 403),
        (("Origin", "https://good.example.evil.org"), 403),
    ],
)
def test_invalid_handshakes_are_refused(
    server: EchoServer, change: tuple[str, str | None], status: int, pieces: int
) -> None:
    """With an HTTP response, a closed connection and an event, for a request in one segment or several."""
    server.events.clear()
    with RawClient(server.port) as peer:
        data = request(headers=changed(change))
        if pieces > 1:
            peer.send(data[:1])
            time.sleep(0.05)
            data = data[1:]
        peer.send(data)
        response = peer.response()
        assert response.status == status
        assert response.headers["connection"] == "close"
        assert len(peer.rest()) == int(response.headers["content-length"])
        if status == 426:
            assert response.headers["sec-websocket-version"] == "13"
    reason = "origin" if status == 403 else "bad"
    assert server.events == [HandshakeRefused("/ws", status, reason)]


def test_unknown_path_and_other_methods_get_404(server: EchoServer) -> None:
    """An unknown path is not reported, because it may contain a secret.

    A request with another method than GET is not a handshake (RFC 6455 section 4.1): the application responds to it.
    """
    server.events.clear()
    with RawClient(server.port) as peer:
        peer.send(request("/nowhere"))
        assert peer.response().status == 404
    assert server.events == [HandshakeRefused("other", 404, "bad")]
    server.events.clear()
    with RawClient(server.port) as peer:
        for _ in range(2):
            peer.send(request(method="POST", headers=changed(("Content-Length", "3"))) + b"abc")
            assert peer.response().status == 404
        peer.send(request())
        assert peer.response().status == 101
    assert server.events == []


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("/ws", b"HTTP/1.1", b"HTTP/1.0"),
        ("/nowhere", b"HTTP/1.1", b"HTTP/1.0"),
        ("/ws", b"Host: ", b"Host: x\r\nHost: "),
        ("/nowhere", b"Host: ", b"Host: x\r\nHost: "),
        ("/nowhere", b"Host: ", b"X-Host: "),
        ("/ws", b"Host: ", b"Host:\r\nHost: "),
        ("/ws", b"Upgrade: ", b"Host:\r\nUpgrade: "),
        ("/ws", b"Host: ", b"Host: a/b"),
    ],
)
def test_http_1_0_and_invalid_hosts_are_refused(
    server: EchoServer, path: str, old: bytes, new: bytes, pieces: int
) -> None:
    """400 for HTTP/1.0 (RFC 6455 section 4.1), and unless there is one valid Host (RFC 9112 section 3.2)."""
    server.events.clear()
    data = request(path).replace(old, new, 1)
    with RawClient(server.port) as peer:
        if pieces > 1:
            peer.send(data[:1])
            time.sleep(0.05)
            data = data[1:]
        peer.send(data)
        response = peer.response()
        assert (response.status, response.headers["connection"]) == (400, "close")
    assert server.events == [HandshakeRefused("/ws" if path == "/ws" else "other", 400, "bad")]


def test_query_is_not_part_of_the_path(server: EchoServer) -> None:
    """Unknown parameters are ignored."""
    with RawClient.open(server.port, "/ws?cf_protocol_version=v2&x=%zz") as peer:
        assert peer.exchange() == []


def test_admission_is_the_last_check(server: EchoServer) -> None:
    """The error response of `admit` is sent if all other checks have passed."""
    server.events.clear()
    server.error_response = ErrorResponse(503, "limit", "too many connections")
    try:
        with RawClient(server.port) as peer:
            peer.send(request())
            assert peer.response().status == 503
            assert peer.rest() == b"too many connections\n"
        with RawClient(server.port) as peer:
            peer.send(request(headers=changed(("Origin", "https://evil.example"))))
            assert peer.response().status == 403
    finally:
        server.error_response = None
    assert server.events == [HandshakeRefused("/ws", 503, "limit"), HandshakeRefused("/ws", 403, "origin")]


def test_negotiated_subprotocol_is_echoed(server: EchoServer) -> None:
    """The endpoint may refuse a request without a known subprotocol."""
    for offered, status, echoed in (("other, known", 101, "known"), ("other", 400, None)):
        with RawClient(server.port) as peer:
            peer.send(request("/subprotocol", headers=changed(("Sec-WebSocket-Protocol", offered))))
            response = peer.response()
            assert (response.status, response.headers.get("sec-websocket-protocol")) == (status, echoed)


def test_exception_in_an_endpoint_is_a_500(server: EchoServer) -> None:
    """The client gets a response."""
    with RawClient(server.port) as peer:
        peer.send(request("/broken"))
        assert peer.response().status == 500


def test_frames_before_the_handshake_response_are_read(server: EchoServer) -> None:
    """A client should wait for the response. The frames of a client that does not wait are not lost."""
    frames = b"".join(client_frame(TEXT, b"%d" % n) for n in range(1000))
    with RawClient(server.port) as peer:
        peer.send(request() + frames)
        assert peer.response().status == 101
        assert [frame.payload for frame in peer.exchange()] == [b"%d" % n for n in range(1000)]


def test_upgrade_on_a_used_connection(server: EchoServer) -> None:
    """Ordinary requests may precede the upgrade on the same connection."""
    with RawClient(server.port) as peer:
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert peer.response().status == 404
        peer.send(request())
        assert peer.response().status == 101
        assert peer.exchange(client_frame(TEXT, b"x")) == [Received(TEXT, b"x")]
