"""What the numbers mean that end connections and refuse commands: ours, and those of WebSocket."""

from __future__ import annotations

from enum import StrEnum

from beaconfire.base.errors import DISCONNECTS, ERRORS, UNSUBSCRIBES

LOST = 1006
"""A connection that ended without a close frame."""


class Kind(StrEnum):
    """What went wrong."""

    CONNECT = "connect"
    ERROR = "error"
    UNSUBSCRIBE = "unsubscribe"
    DISCONNECT = "disconnect"


_WEBSOCKET = {
    1000: "The server closed the connection as if all was done.",
    1001: "The server is going away.",
    1002: "The server says that the client broke the WebSocket protocol.",
    1005: "The server closed the connection and gave no code.",
    LOST: "The connection was lost without a close frame: the server died, or something between cut it.",
    1008: "The server's policy forbids it.",
    1009: "A message is too big for the server: publish less with --payload.",
    1011: "The server failed.",
    1012: "The server restarts.",
    1013: "The server is too busy.",
}

_HTTP = {
    401: "The server or a proxy before it asks for credentials.",
    403: "The server or a proxy before it refuses this client, or its origin.",
    404: "There is no such path: is it /connection/websocket?",
    429: "The server or a proxy before it limits how fast clients may come.",
    502: "A proxy cannot reach the server.",
    503: "The server is full, limits how fast clients may come, or is shutting down.",
    504: "A proxy waited too long for the server.",
}

_TABLES: dict[Kind, dict[int, str]] = {
    Kind.CONNECT: _HTTP,
    Kind.ERROR: {code.code: code.meaning for code in ERRORS},
    Kind.UNSUBSCRIBE: {code.code: code.meaning for code in UNSUBSCRIBES},
    Kind.DISCONNECT: _WEBSOCKET | {code.code: code.meaning for code in DISCONNECTS},
}


def meaning(kind: Kind, code: int) -> str:
    """A sentence; empty for a number that nobody has told us about."""
    return _TABLES[kind].get(code, "")
