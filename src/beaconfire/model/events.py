"""Events: frozen records of what happens inside the server. The core emits events; sinks make logs and metrics of them.

An event never contains a token or the data of a user. `emit` must be fast and must not raise: a sink that raises is a
bug. There is no event per delivery: deliveries are counted where they happen, and read from `statistics()`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, get_args

from msgspec import Struct

from beaconfire.base.errors import EngineError


class ConnectionOpened(Struct, frozen=True):
    """A transport is connected. The client has not authenticated yet."""

    transport: str
    protocol: str
    client: str


class SessionConnected(Struct, frozen=True):
    """A client has authenticated. Its SDK sent `name` and `version`."""

    client: str
    user: str
    transport: str
    protocol: str
    name: str
    version: str


class SessionEnded(Struct, frozen=True):
    """A session ended. `code` and `reason` are those of the disconnect, `detail` is the exact cause."""

    client: str
    user: str
    transport: str
    protocol: str
    code: int
    reason: str
    detail: str
    duration_s: float


class CommandHandled(Struct, frozen=True):
    """A command was handled. `error` is 0 for success, else the code of the error or of the disconnect."""

    client: str
    user: str
    method: str
    namespace: str
    duration_s: float
    error: int
    detail: str


class ApiCallHandled(Struct, frozen=True):
    """A call of the server API was handled. `error` is 0 for success, else the code of the error."""

    method: str
    duration_s: float
    error: int


class Subscribed(Struct, frozen=True):
    """A subscription started."""

    client: str
    channel: str
    namespace: str


class Unsubscribed(Struct, frozen=True):
    """A subscription ended. `code` is an unsubscribe code; 0 if the client unsubscribed or its session ended."""

    client: str
    channel: str
    namespace: str
    code: int


class RecoveryFinished(Struct, frozen=True):
    """A recovery ended. `recovered` is false if publications were lost. `publications` is the number delivered."""

    channel: str
    namespace: str
    recovered: bool
    publications: int


class BatchFannedOut(Struct, frozen=True):
    """The publications of one channel in one turn of the event loop were added to the outboxes of `subscribers`
    sessions.
    """

    namespace: str
    publications: int
    subscribers: int
    duration_s: float


class LimitHit(Struct, frozen=True):
    """A limit took effect. `limit` is the name of its setting."""

    limit: str
    client: str


class HandshakeRefused(Struct, frozen=True):
    """A WebSocket upgrade was answered with an HTTP error.

    `path` is the path of an endpoint, or `other`: clients may request any path, and a path may contain secrets.
    `reason` is one of: origin, limit, rate, draining, bad.
    """

    path: str
    status: int
    reason: str


class DrainAdvanced(Struct, frozen=True):
    """A drain reached a phase: unready, stopped_listening, closing, closed or finished.

    `remaining` is the number of open sessions.
    """

    phase: str
    remaining: int


class TokenKeysFetched(Struct, frozen=True):
    """A fetch of the JSON Web Key Set ended. `error` is empty for success. `keys` is the number of keys in use."""

    keys: int
    error: str


class ChannelHealed(Struct, frozen=True):
    """This node had missed publications of a channel.

    `bridged` is true if history had all of them: then they were delivered, and `publications` is their number.
    Otherwise the subscriptions with a position were told.
    """

    namespace: str
    bridged: bool
    publications: int


class WorkDropped(Struct, frozen=True):
    """Background work was given up, because the engine has failed for too long.

    `work` is one of: announcements (of joins and leaves), subscribe (at the request of the server API), shutdown (what
    was left at the end of the node). `count` is how many pieces of work were dropped.
    """

    work: str
    count: int
    detail: str


class EngineCallFailed(Struct, frozen=True):
    """A call of the engine failed. `call` is its name, for example publish or presence_add.

    `reason` is one of: timeout, unavailable, defect (an unexpected exception), not_replicated, storage_full.
    """

    call: str
    reason: str


class EngineStateChanged(Struct, frozen=True):
    """The engine has stopped working, or works again. `detail` says why it does not work, and is empty if it works."""

    engine: str
    up: bool
    detail: str


class HubConnectionEnded(Struct, frozen=True):
    """The connection of a worker process to the hub has ended. `node` is the uid of its node, if that was known.

    `reason` is empty if the worker has closed the connection in the normal way.
    """

    node: str
    reason: str


class StorageOpened(Struct, frozen=True):
    """The engine has opened its file `path`: at the start, or again after an error.

    `library` is the version of the library that stores the data. `is_copy` tells whether the file is a copy, so that
    each stream gets a new epoch at its next use. `advice` is empty, or says what operators should know.
    """

    path: str
    library: str
    is_copy: bool
    advice: str


class EngineConnected(Struct, frozen=True):
    """The engine has connected to the server at `address`: at the start, or again after a loss.

    `server` is its name and version. `advice` is empty, or says what operators should change.
    """

    engine: str
    server: str
    address: str
    advice: str


class MigrationProgressed(Struct, frozen=True):
    """A migration has finished a step: `channels` channels were restored, copied or verified, or wait after a failure.

    `step` is one of: restored (the old engine got what the new one had kept), copied, verified, recovered (the new
    engine works again). `different` is how many channels a verification found to differ.
    """

    step: str
    channels: int
    different: int = 0


class MigrationFailed(Struct, frozen=True):
    """The new engine of a migration has failed. The old one goes on alone until `MigrationProgressed`. `detail` says
    why, for operators."""

    detail: str


class MigrationReadChanged(Struct, frozen=True):
    """From now on, the history of `percent` of the channels is read from the new engine of a migration."""

    percent: float


class TokensRevoked(Struct, frozen=True):
    """The server API has revoked tokens: of `user`, for `channel` only if it is given, or, if `user` is empty, those
    with a token id. The id is a part of a token, so it is not in the event. The revocation ends at `expire_at_unix_s`.
    """

    user: str
    channel: str
    expire_at_unix_s: float


class RevocationApplied(Struct, frozen=True):
    """A revocation took effect. `kind` says on what: a session or subscription that ended, or a token that was refused.
    It is one of: session, subscription, token.
    """

    kind: str


class TicketChecked(Struct, frozen=True):
    """A client has sent a resume ticket. `kind` is connection or subscription. `outcome` is accepted, or the reason for
    which the ticket counts as absent: one of `policy.tickets.TICKET_REFUSALS`."""

    kind: str
    outcome: str


class LoopMeasured(Struct, frozen=True):
    """The event loop ran a timer `late_s` seconds after it was due. Other work has waited as long."""

    late_s: float


class InternalError(Struct, frozen=True):
    """An unexpected error of the server. `where` is the part of the server, `error` is the traceback."""

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
    | ChannelHealed
    | WorkDropped
    | EngineCallFailed
    | EngineStateChanged
    | HubConnectionEnded
    | StorageOpened
    | EngineConnected
    | MigrationProgressed
    | MigrationFailed
    | MigrationReadChanged
    | TokensRevoked
    | RevocationApplied
    | TicketChecked
    | LoopMeasured
    | InternalError
)


class EventSink(Protocol):
    """Receives events synchronously, when they happen."""

    def emit(self, event: Event) -> None: ...


class NoEvents:
    """A sink that ignores all events."""

    __slots__ = ()

    def emit(self, event: Event) -> None:
        pass


class SelectiveSink(Protocol):
    """A sink that handles some types of events."""

    def handler(self, kind: type[Event]) -> Callable[[Any], None] | None:
        """The function that handles events of this type, or None. Called once per type."""


class EventDispatcher:
    """A sink that passes each event to the sinks that handle its type, in the order of the sinks."""

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
    """A snapshot of one node. Fields with `_total` only increase; the others are current values. Sizes are bytes."""

    connections: int = 0
    sessions: int = 0
    users: int = 0
    channels: int = 0
    subscriptions: int = 0
    queue_bytes: int = 0
    history_publications: int = 0
    history_bytes: int = 0
    engine_up: int = 1
    migration_waiting: int = 0
    migration_read_percent: float = 0.0
    revocations: int = 0
    messages_in_total: int = 0
    bytes_in_total: int = 0
    messages_out_total: int = 0
    bytes_out_total: int = 0
    writes_total: int = 0
    patches_total: int = 0
    filtered_total: int = 0
    conflated_total: int = 0
    reads_requested_total: int = 0
    reads_total: int = 0


def report_error(events: EventSink, where: str, error: BaseException) -> None:
    """Emits `InternalError` with the traceback of an exception that should not happen. `where` names the operation.

    Emits nothing for an `EngineError`: engines may fail, and the guard of the engine has counted the failure.
    """
    if isinstance(error, EngineError):
        return
    events.emit(InternalError(where, "".join(traceback.format_exception(error))))
