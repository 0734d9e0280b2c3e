"""Connections that never get to a WebSocket, over a real connection."""

from __future__ import annotations

import time

from beaconfire.model.events import LimitHit

from .peer import HEADERS, Peer, request
from .server import EchoServer


def test_silence(server: EchoServer) -> None:
    """Cut after the handshake timeout (half a second here)."""
    server.events.clear()
    begun = time.monotonic()
    with Peer(server.port) as peer:
        assert peer.rest() == b""
    assert 0.4 < time.monotonic() - begun < 5
    assert server.events == [LimitHit("server.handshake_timeout", "")]


def test_dripping_request(server: EchoServer) -> None:
    """One byte now and then is no progress."""
    with Peer(server.port) as peer:
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


def test_endless_head(server: EchoServer) -> None:
    """Beyond the limit (8 KiB here): 431."""
    with Peer(server.port) as peer:
        peer.send(request(headers=(*HEADERS, ("Cookie", "x" * 9000))))
        assert peer.response().status == 431
