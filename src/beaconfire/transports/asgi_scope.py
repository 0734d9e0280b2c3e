"""Reads the scope of an ASGI connection."""

from __future__ import annotations

from starlette.types import Scope

from beaconfire.base.route_path import route_path
from beaconfire.model.handshake import Handshake, decode_headers


def read_handshake(scope: Scope, transport: str) -> Handshake:
    """The handshake of a request of type `http` or `websocket`. `transport` is the name of the session's transport.

    The path is below the place where the application is mounted. The address is that of the scope, which the ASGI
    server or its proxy-headers middleware has set.
    """
    client = scope.get("client")
    return Handshake(
        transport=transport,
        path=route_path(scope),
        query=scope["query_string"].decode("latin-1"),
        headers=decode_headers(scope["headers"]),
        client_address=client[0] if client else "",
    )
