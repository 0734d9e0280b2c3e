"""The handshake of an ASGI connection."""

from __future__ import annotations

from typing import Any

from beaconfire.model.handshake import Handshake
from beaconfire.transports.asgi_scope import read_handshake


def test_handshake_has_the_fields_of_the_scope() -> None:
    """For HTTP and WebSocket alike."""
    scope: dict[str, Any] = {
        "type": "http",
        "path": "/connection/sse",
        "query_string": b"cf_connect=%7B%7D",
        "headers": [(b"host", b"example.com"), (b"cookie", b"a=1"), (b"cookie", b"b=2")],
        "client": ("203.0.113.7", 50000),
    }
    handshake = read_handshake(scope, "sse")
    assert handshake == Handshake(
        "sse",
        "/connection/sse",
        "cf_connect=%7B%7D",
        {"host": "example.com", "cookie": "a=1; b=2"},
        "203.0.113.7",
    )


def test_address_is_empty_if_the_server_does_not_know_it() -> None:
    """On a Unix socket the scope has no client."""
    scope: dict[str, Any] = {"type": "websocket", "path": "/", "query_string": b"", "headers": []}
    for unknown in (scope, {**scope, "client": None}):
        assert read_handshake(unknown, "websocket") == Handshake("websocket", "/")
