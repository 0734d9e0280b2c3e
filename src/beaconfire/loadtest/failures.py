"""What can go wrong in a load test, and what the codes mean: ours, those of WebSocket and those of HTTP."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from beaconfire.base.errors import DISCONNECTS, ERRORS, UNSUBSCRIBES

LOST = 1006
"""The code of a connection that ended without a close frame (RFC 6455, section 7.1.5)."""


class FailureKind(StrEnum):
    """Which step failed: opening a connection, a command, a subscription, or an open connection."""

    CONNECT = "connect"
    ERROR = "error"
    UNSUBSCRIBE = "unsubscribe"
    DISCONNECT = "disconnect"


class Failure(Struct, frozen=True):
    """The same failure, `count` times. `code` is 0 if there is none."""

    kind: FailureKind
    code: int
    reason: str
    count: int


_WEBSOCKET = {
    1000: "The server closed the connection normally.",
    1001: "The server is shutting down.",
    1002: "The server reports that the client violated the WebSocket protocol.",
    1005: "The server closed the connection without a code.",
    LOST: "The connection was lost without a close frame: the server or something on the network path failed.",
    1008: "The server's policy forbids the connection.",
    1009: "A message is too large for the server: use a smaller --payload.",
    1011: "The server failed.",
    1012: "The server restarts.",
    1013: "The server is overloaded.",
}

_HTTP = {
    401: "The server or a proxy in front of it requires credentials.",
    403: "The server or a proxy in front of it refuses this client or its origin.",
    404: "The server has no such path. The usual path is /connection/websocket.",
    429: "The server or a proxy in front of it limits the rate of new connections.",
    502: "A proxy cannot reach the server.",
    503: "The server has reached its connection limit or its limit on the connection rate, or is shutting down.",
    504: "A proxy did not get a response from the server in time.",
}

_MEANINGS: dict[FailureKind, dict[int, str]] = {
    FailureKind.CONNECT: _HTTP,
    FailureKind.ERROR: {code.code: code.meaning for code in ERRORS},
    FailureKind.UNSUBSCRIBE: {code.code: code.meaning for code in UNSUBSCRIBES},
    FailureKind.DISCONNECT: _WEBSOCKET | {code.code: code.meaning for code in DISCONNECTS},
}


def find_meaning(kind: FailureKind, code: int) -> str:
    """A sentence that explains the code; empty if the code is unknown."""
    return _MEANINGS[kind].get(code, "")
