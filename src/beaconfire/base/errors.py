"""Every way a request or a connection can fail, once.

A failure is one of two things. An *error* is the reply to a command: the session lives on. A *disconnect* ends
the session, and its code tells the client whether to come back. Numbers and their reconnect meaning follow the
Centrifuge client protocol, so that its SDKs behave; see `docs/reference/codes.md`, which is made from these tables.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """A numbered reply error. `temporary` tells the client that trying again later makes sense."""

    code: int
    message: str
    meaning: str
    temporary: bool = False


@dataclass(frozen=True, slots=True)
class DisconnectCode:
    """A numbered end of a session, delivered as the WebSocket close code and reason."""

    code: int
    reason: str
    meaning: str

    @property
    def reconnect(self) -> bool:
        """Whether a client should come back: 3500-3999 and 4500-4999 are final, everything else is not."""
        return not (3500 <= self.code <= 3999 or 4500 <= self.code <= 4999)


@dataclass(frozen=True, slots=True)
class UnsubscribeCode:
    """A numbered end of one subscription. From 2500 on the client subscribes again by itself."""

    code: int
    reason: str
    meaning: str

    @property
    def resubscribe(self) -> bool:
        return self.code >= 2500


INTERNAL = ErrorCode(100, "internal server error", "A bug or a failing dependency; details are in the log.", True)
UNAUTHORIZED = ErrorCode(101, "unauthorized", "The connection has no identity that may do this.")
UNKNOWN_CHANNEL = ErrorCode(102, "unknown channel", "The channel's namespace is not configured.")
PERMISSION_DENIED = ErrorCode(103, "permission denied", "This identity may not do that here.")
METHOD_NOT_FOUND = ErrorCode(104, "method not found", "No such RPC or API method.")
ALREADY_SUBSCRIBED = ErrorCode(105, "already subscribed", "This connection is in the channel already.")
LIMIT_EXCEEDED = ErrorCode(
    106, "limit exceeded", "More channels than a connection may have, or a larger answer than one may be."
)
BAD_REQUEST = ErrorCode(107, "bad request", "A field is missing, malformed or out of range.")
NOT_AVAILABLE = ErrorCode(108, "not available", "The feature is switched off for this channel or server.")
TOKEN_EXPIRED = ErrorCode(109, "token expired", "Get a new token and try again.")
EXPIRED = ErrorCode(110, "expired", "The connection's own time was up before it began.")
TOO_MANY_REQUESTS = ErrorCode(111, "too many requests", "Slow down and try again.", True)
UNRECOVERABLE_POSITION = ErrorCode(112, "unrecoverable position", "The epoch has changed: read the state afresh.")

ERRORS: tuple[ErrorCode, ...] = (
    INTERNAL,
    UNAUTHORIZED,
    UNKNOWN_CHANNEL,
    PERMISSION_DENIED,
    METHOD_NOT_FOUND,
    ALREADY_SUBSCRIBED,
    LIMIT_EXCEEDED,
    BAD_REQUEST,
    NOT_AVAILABLE,
    TOKEN_EXPIRED,
    EXPIRED,
    TOO_MANY_REQUESTS,
    UNRECOVERABLE_POSITION,
)

CONNECTION_CLOSED = DisconnectCode(3000, "connection closed", "The connection ended; no close frame is sent.")
SHUTDOWN = DisconnectCode(3001, "shutdown", "This node is leaving; another one will answer.")
SERVER_ERROR = DisconnectCode(3004, "internal server error", "A bug or a failing dependency.")
CONNECTION_EXPIRED = DisconnectCode(3005, "connection expired", "The token ran out and was not refreshed.")
SUBSCRIPTION_EXPIRED = DisconnectCode(3006, "subscription expired", "A subscription token ran out.")
SLOW = DisconnectCode(3008, "slow", "The client reads more slowly than its channels speak.")
WRITE_ERROR = DisconnectCode(3009, "write error", "Nothing could be written within the write timeout.")
INSUFFICIENT_STATE = DisconnectCode(3010, "insufficient state", "A gap was noticed: come back with your position.")
FORCE_RECONNECT = DisconnectCode(3011, "force reconnect", "The server asks for a new connection.")
NO_PONG = DisconnectCode(3012, "no pong", "A ping was not answered in time.")
CONNECTION_TOO_MANY_REQUESTS = DisconnectCode(3013, "too many requests", "The message or byte rate limit was hit.")
STATE_INVALIDATED = DisconnectCode(3014, "state invalidated", "Drop what you know and read it afresh.")
INVALID_TOKEN = DisconnectCode(3500, "invalid token", "The token can never work: wrong key, claim or user.")
BAD_PROTOCOL = DisconnectCode(3501, "bad request", "The client broke the protocol.")
STALE = DisconnectCode(3502, "stale", "The connection was opened but did not authenticate in time.")
FORCE_DISCONNECT = DisconnectCode(3503, "force disconnect", "The server API ended this connection.")
CONNECTION_LIMIT = DisconnectCode(3504, "connection limit", "The user has too many connections.")
CHANNEL_LIMIT = DisconnectCode(3505, "channel limit", "More server-side channels than one connection may have.")
INAPPROPRIATE_PROTOCOL = DisconnectCode(
    3506, "inappropriate protocol", "A payload that is not JSON cannot be delivered to a JSON client."
)
CONNECTION_DENIED = DisconnectCode(3507, "permission denied", "This identity may not connect.")
COMMAND_NOT_AVAILABLE = DisconnectCode(3508, "not available", "The command has no handler on this server.")
TOO_MANY_ERRORS = DisconnectCode(3509, "too many errors", "Too many commands failed.")

DISCONNECTS: tuple[DisconnectCode, ...] = (
    CONNECTION_CLOSED,
    SHUTDOWN,
    SERVER_ERROR,
    CONNECTION_EXPIRED,
    SUBSCRIPTION_EXPIRED,
    SLOW,
    WRITE_ERROR,
    INSUFFICIENT_STATE,
    FORCE_RECONNECT,
    NO_PONG,
    CONNECTION_TOO_MANY_REQUESTS,
    STATE_INVALIDATED,
    INVALID_TOKEN,
    BAD_PROTOCOL,
    STALE,
    FORCE_DISCONNECT,
    CONNECTION_LIMIT,
    CHANNEL_LIMIT,
    INAPPROPRIATE_PROTOCOL,
    CONNECTION_DENIED,
    COMMAND_NOT_AVAILABLE,
    TOO_MANY_ERRORS,
)

UNSUBSCRIBED_BY_CLIENT = UnsubscribeCode(0, "unsubscribe called", "The client asked for it; never sent.")
UNSUBSCRIBED_BY_SERVER = UnsubscribeCode(2000, "server unsubscribed", "The server API ended the subscription.")
UNSUBSCRIBED_INSUFFICIENT = UnsubscribeCode(2500, "insufficient state", "A gap was noticed: recover.")
UNSUBSCRIBED_EXPIRED = UnsubscribeCode(2501, "subscription expired", "Get a new subscription token.")

UNSUBSCRIBES: tuple[UnsubscribeCode, ...] = (
    UNSUBSCRIBED_BY_CLIENT,
    UNSUBSCRIBED_BY_SERVER,
    UNSUBSCRIBED_INSUFFICIENT,
    UNSUBSCRIBED_EXPIRED,
)


class BeaconfireError(Exception):
    """The root of what Beaconfire raises on purpose."""


class CommandError(BeaconfireError):
    """A command failed: the client gets this error as its reply and the session lives on.

    `detail` names the field and the remedy. It goes to the log, and to the client only with `debug_reasons`.
    """

    def __init__(self, code: ErrorCode, detail: str = "") -> None:
        super().__init__(f"{code.code} {code.message}" + (f": {detail}" if detail else ""))
        self.code = code
        self.detail = detail


class Disconnect(BeaconfireError):
    """The session must end with this code. `detail` as in `CommandError`."""

    def __init__(self, code: DisconnectCode, detail: str = "") -> None:
        super().__init__(f"{code.code} {code.reason}" + (f": {detail}" if detail else ""))
        self.code = code
        self.detail = detail


class PayloadError(BeaconfireError):
    """A payload cannot be expressed in this wire variant (not JSON, for a JSON client)."""
