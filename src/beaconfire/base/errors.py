"""The tables of all error, disconnect and unsubscribe codes, and the exceptions that carry them.

A failure is one of two things. An *error* is the reply to one command; the session continues. A *disconnect* ends
the session, and its code tells the client whether to reconnect. The numbers and their meaning for reconnecting are
those of the Centrifuge client protocol (section 15), because its SDKs depend on them. Error codes from 150 on are
Beaconfire's own. `docs/reference/codes.md` is
generated from these tables.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """An error reply. If `temporary` is true, the client may send the command again later."""

    code: int
    message: str
    meaning: str
    temporary: bool = False


@dataclass(frozen=True, slots=True)
class DisconnectCode:
    """The reason for the end of a session. The client receives it as the WebSocket close code and reason."""

    code: int
    reason: str
    meaning: str

    @property
    def reconnect(self) -> bool:
        """Whether the client should reconnect. Codes 3500-3999 and 4500-4999 are final; after all other codes it
        should."""
        return not (3500 <= self.code <= 3999 or 4500 <= self.code <= 4999)


@dataclass(frozen=True, slots=True)
class UnsubscribeCode:
    """The reason for the end of one subscription."""

    code: int
    reason: str
    meaning: str

    @property
    def resubscribe(self) -> bool:
        """Whether the SDKs subscribe again automatically: from code 2500 on."""
        return self.code >= 2500


INTERNAL = ErrorCode(100, "internal server error", "A bug or a failing dependency; the log has the details.", True)
UNAUTHORIZED = ErrorCode(101, "unauthorized", "The connection has no identity that is allowed to do this.")
UNKNOWN_CHANNEL = ErrorCode(102, "unknown channel", "The channel's namespace is not configured.")
PERMISSION_DENIED = ErrorCode(103, "permission denied", "The user is not allowed to do this in the channel.")
METHOD_NOT_FOUND = ErrorCode(104, "method not found", "The RPC or API method does not exist.")
ALREADY_SUBSCRIBED = ErrorCode(105, "already subscribed", "The connection is already subscribed to the channel.")
LIMIT_EXCEEDED = ErrorCode(
    106, "limit exceeded", "The connection has too many channels, or the reply would be too large."
)
BAD_REQUEST = ErrorCode(107, "bad request", "A field is missing, malformed or out of range.")
NOT_AVAILABLE = ErrorCode(108, "not available", "The feature is disabled for this channel or on this server.")
TOKEN_EXPIRED = ErrorCode(109, "token expired", "Get a new token and try again.")
EXPIRED = ErrorCode(110, "expired", "The connection had already expired before it was established.")
TOO_MANY_REQUESTS = ErrorCode(111, "too many requests", "Slow down and try again.", True)
UNRECOVERABLE_POSITION = ErrorCode(112, "unrecoverable position", "The epoch has changed: load the state again.")
OUT_OF_SEQUENCE = ErrorCode(
    150, "out of sequence", "The producer's `seq` is not the next number; the detail names the expected one."
)

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
    OUT_OF_SEQUENCE,
)

CONNECTION_CLOSED = DisconnectCode(3000, "connection closed", "The connection was closed; no close frame is sent.")
SHUTDOWN = DisconnectCode(3001, "shutdown", "This node is shutting down; reconnect to another node.")
SERVER_ERROR = DisconnectCode(3004, "internal server error", "A bug or a failing dependency.")
CONNECTION_EXPIRED = DisconnectCode(3005, "connection expired", "The token expired and was not refreshed.")
SUBSCRIPTION_EXPIRED = DisconnectCode(3006, "subscription expired", "A subscription token expired.")
SLOW = DisconnectCode(3008, "slow", "The client reads more slowly than data for it is published.")
WRITE_ERROR = DisconnectCode(3009, "write error", "Nothing could be written within the write timeout.")
INSUFFICIENT_STATE = DisconnectCode(
    3010, "insufficient state", "Publications are missing: reconnect and recover from your position."
)
FORCE_RECONNECT = DisconnectCode(3011, "force reconnect", "The server asks the client to reconnect.")
NO_PONG = DisconnectCode(3012, "no pong", "The client did not answer a ping in time.")
CONNECTION_TOO_MANY_REQUESTS = DisconnectCode(
    3013, "too many requests", "The client exceeded the message or byte rate limit."
)
STATE_INVALIDATED = DisconnectCode(3014, "state invalidated", "Discard your state and load it again.")
INVALID_TOKEN = DisconnectCode(3500, "invalid token", "The token has a wrong signature, claim or user.")
BAD_PROTOCOL = DisconnectCode(3501, "bad request", "The client broke the protocol.")
STALE = DisconnectCode(3502, "stale", "The client did not authenticate in time.")
FORCE_DISCONNECT = DisconnectCode(3503, "force disconnect", "The server API closed the connection.")
CONNECTION_LIMIT = DisconnectCode(3504, "connection limit", "The user has too many connections.")
CHANNEL_LIMIT = DisconnectCode(3505, "channel limit", "The connection has too many server-side channels.")
INAPPROPRIATE_PROTOCOL = DisconnectCode(
    3506, "inappropriate protocol", "A payload that is not JSON cannot be delivered to a JSON client."
)
CONNECTION_DENIED = DisconnectCode(3507, "permission denied", "The user is not allowed to connect.")
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

UNSUBSCRIBED_BY_CLIENT = UnsubscribeCode(0, "unsubscribe called", "The client unsubscribed; this code is never sent.")
UNSUBSCRIBED_BY_SERVER = UnsubscribeCode(2000, "server unsubscribed", "The server API ended the subscription.")
UNSUBSCRIBED_INSUFFICIENT = UnsubscribeCode(
    2500, "insufficient state", "Publications are missing: subscribe again and recover from your position."
)
UNSUBSCRIBED_EXPIRED = UnsubscribeCode(2501, "subscription expired", "Get a new subscription token.")

UNSUBSCRIBES: tuple[UnsubscribeCode, ...] = (
    UNSUBSCRIBED_BY_CLIENT,
    UNSUBSCRIBED_BY_SERVER,
    UNSUBSCRIBED_INSUFFICIENT,
    UNSUBSCRIBED_EXPIRED,
)


class BeaconfireError(Exception):
    """The base class of Beaconfire's own exceptions."""


class CommandError(BeaconfireError):
    """A command failed. The client gets this error as the reply, and the session continues.

    `detail` names the field and the remedy. The server logs it, and sends it to the client only if `debug_reasons`
    is on.
    """

    def __init__(self, code: ErrorCode, detail: str = "") -> None:
        super().__init__(f"{code.code} {code.message}" + (f": {detail}" if detail else ""))
        self.code = code
        self.detail = detail


class OutOfSequence(CommandError):
    """A number of a producer came after a gap, or from a producer that the channel does not know. Nothing was
    published. `producer` and `seq` are those of the publish, `expected` is the number that the engine takes next."""

    def __init__(self, producer: str, seq: int, expected: int) -> None:
        problem = "the channel does not know this producer" if expected == 1 else f"{expected - 1} was the last number"
        super().__init__(OUT_OF_SEQUENCE, f"seq: expected {expected} of producer {producer!r}, got {seq}: {problem}")
        self.producer = producer
        self.seq = seq
        self.expected = expected


class EngineError(CommandError):
    """The engine did not do what was asked. The client gets error 100, which is temporary: it may try again later.

    `detail` names the call and the remedy.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(INTERNAL, detail)


class EngineUnavailable(EngineError):
    """The engine did not answer: its link is lost, the deadline has passed, or the call failed.

    Whether the call has taken effect is not known. It may be repeated.
    """


class NotReplicated(EngineError):
    """The publication is stored and announced, but fewer replicas than asked for have confirmed it."""


class StorageFull(EngineError):
    """The engine has no room for the publication, which is neither stored nor announced."""


class StorageUnusable(EngineUnavailable):
    """The engine cannot open the file `path`, so the server does not start. `problem` names the remedy."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path!r} {problem}")
        self.path = path
        self.problem = problem


class Disconnect(BeaconfireError):
    """The session must end with this code. For `detail` see `CommandError`."""

    def __init__(self, code: DisconnectCode, detail: str = "") -> None:
        super().__init__(f"{code.code} {code.reason}" + (f": {detail}" if detail else ""))
        self.code = code
        self.detail = detail


class PayloadError(BeaconfireError):
    """The codec cannot express a payload, for example bytes that are not JSON for a JSON client."""
