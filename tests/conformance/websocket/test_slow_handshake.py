"""Slow or endless handshakes, over a real connection."""

from __future__ import annotations

import time

from beaconfire.model.events import LimitHit

from .raw_client import HEADERS, RawClient, request
from .server import EchoServer


def test_silent_connection_is_closed(server: EchoServer) -> None:
    """After the handshake timeout (half a second here)."""
    server.events.clear()
    started_s = time.monotonic()
    with RawClient(server.port) as peer:
        assert peer.rest() == b""
    assert 0.4 < time.monotonic() - started_s < 5
    assert server.events == [LimitHit("server.handshake_timeout", "")]


def test_slow_request_gets_408(server: EchoServer) -> None:
    """Single bytes do not extend the timeout."""
    with RawClient(server.port) as peer:
        peer.socket.settimeout(0.1)
        rest = b""
        for byte in request() * 2:
            try:
                peer.send(bytes([byte]))
                rest += peer.socket.recv(1000)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            if rest:
                break
        assert rest.startswith(b"HTTP/1.1 408 ")


def test_large_head_gets_431(server: EchoServer) -> None:
    """The limit is 8 KiB here."""
    with RawClient(server.port) as peer:
        peer.send(request(headers=(*HEADERS, ("Cookie", "x" * 9000))))
        assert peer.response().status == 431
