"""What can be observed inside the server: frozen facts that the core emits and sinks turn into logs and metrics.

An event never carries a user's data or a token. Emitting must be cheap and never fails: a sink that raises is a bug.
There is no event per delivery; what happens that often is counted where it happens and read by `statistics()`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, get_args

from msgspec import Struct


class ConnectionOpened(Struct, frozen=True):
    """A transport is up; nobody has authenticated yet."""

    transport: str
    protocol: str
    client: str


class SessionConnected(Struct, frozen=True):
    """A client has authenticated. `name` and `version` are what its SDK says of itself."""

    client: str
    user: str
    transport: str
    protocol: str
    name: str
    version: str


class SessionEnded(Struct, frozen=True):
    """`code` and `reason` are the disconnect's; `detail` says what exactly was wrong."""

    client: str
    user: str
    transport: str
    protocol: str
    code: int
    reason: str
    detail: str
    duration_s: float


class CommandHandled(Struct, frozen=True):
    """`error` is 0 for success, else the reply error's or the disconnect's code."""

    client: str
    user: str
    method: str
    namespace: str
    duration_s: float
    error: int
    detail: str


class ApiCallHandled(Struct, frozen=True):
    method: str
    duration_s: float
    error: int


class Subscribed(Struct, frozen=True):
    client: str
    channel: str
    namespace: str


class Unsubscribed(Struct, frozen=True):
    """The end of what `Subscribed` began. `code` as in the table of unsubscribe codes; 0 when the client asked or
    went away."""

    client: str
    channel: str
    namespace: str
    code: int


class RecoveryFinished(Struct, frozen=True):
    channel: str
    namespace: str
    recovered: bool
    publications: int


class BatchFannedOut(Struct, frozen=True):
    """The publications of one channel in one tick were handed to the outboxes of `subscribers` sessions."""

    namespace: str
    publications: int
    subscribers: int
    duration_s: float


class LimitHit(Struct, frozen=True):
    """A named limit took effect; `limit` is the name of its setting."""

    limit: str
    client: str


class HandshakeRefused(Struct, frozen=True):
    """An upgrade was answered with an HTTP error. `path` is that of an endpoint, or `other`: anyone may ask for any
    path, and some people put secrets into one. `reason` is a fixed word: origin, limit, rate, draining, bad.
    """

    path: str
    status: int
    reason: str


class DrainAdvanced(Struct, frozen=True):
    """`phase` is one of: unready, stopped_listening, closing, closed, finished."""

    phase: str
    remaining: int


class TokenKeysFetched(Struct, frozen=True):
    """A JWKS endpoint was asked. `error` is empty for success."""

    keys: int
    error: str


class InternalError(Struct, frozen=True):
    """Something that should not happen; `error` holds the traceback."""

    where: str
    error: str


Event: TypeAlias = (
    ConnectionOpened
    | SessionConnected
    | SessionEnded
    | CommandHandled
    | ApiCallHandled
    | Subscribed
    | Unsubscribed
    | RecoveryFinished
    | BatchFannedOut
    | LimitHit
    | HandshakeRefused
    | DrainAdvanced
    | TokenKeysFetched
    | InternalError
)


class EventSink(Protocol):
    """Takes events as they happen, synchronously."""

    def emit(self, event: Event) -> None: ...


class NoEvents:
    """A sink for those who do not look."""

    __slots__ = ()

    def emit(self, event: Event) -> None:
        pass


class SelectiveSink(Protocol):
    """A sink that is not interested in everything."""

    def handler(self, kind: type[Event]) -> Callable[[Any], None] | None:
        """What takes events of this type; None if nothing does. Asked once."""


class EventDispatcher:
    """One sink that feeds several, each with what it is interested in."""

    __slots__ = ("_handlers",)

    def __init__(self, *sinks: SelectiveSink) -> None:
        # Any: each handler takes the one event type it is listed for.
        self._handlers: dict[type, tuple[Callable[[Any], None], ...]] = {
            kind: tuple(handler for sink in sinks if (handler := sink.handler(kind)) is not None)
            for kind in get_args(Event)
        }

    def emit(self, event: Event) -> None:
        for handle in self._handlers[type(event)]:
            handle(event)


class NodeStatistics(Struct, frozen=True):
    """A snapshot of one node. The `_total` figures only rise; the others are as of now. Sizes are bytes."""

    connections: int = 0
    sessions: int = 0
    users: int = 0
    channels: int = 0
    subscriptions: int = 0
    queue_bytes: int = 0
    history_publications: int = 0
    history_bytes: int = 0
    messages_in_total: int = 0
    bytes_in_total: int = 0
    messages_out_total: int = 0
    bytes_out_total: int = 0
    writes_total: int = 0
    patches_total: int = 0
    filtered_total: int = 0
    conflated_total: int = 0


def report_error(events: EventSink, where: str, error: BaseException) -> None:
    """Emits `InternalError` with the traceback of an exception that should not happen. `where` names the operation."""
    events.emit(InternalError(where, "".join(traceback.format_exception(error))))
