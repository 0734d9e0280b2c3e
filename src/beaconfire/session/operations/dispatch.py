"""From a command to its function, and from a failure to what the client is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    INAPPROPRIATE_PROTOCOL,
    INTERNAL,
    SERVER_ERROR,
    CommandError,
    Disconnect,
    PayloadError,
)
from beaconfire.model.events import CommandHandled
from beaconfire.model.requests import (
    Command,
    ConnectRequest,
    HistoryRequest,
    InvalidRequest,
    LobbyFrame,
    PingRequest,
    Pong,
    PresenceRequest,
    PresenceStatsRequest,
    PublishRequest,
    RefreshRequest,
    RoomMessage,
    RPCRequest,
    SendRequest,
    SubRefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from beaconfire.session.operations import connect, publish, read, subscribe
from beaconfire.session.session import Session, SessionPhase

Handler = Callable[[Session, object, Any], Awaitable[None]]


async def _invalid(session: Session, ref: object, request: InvalidRequest) -> None:
    raise CommandError(request.code, request.detail)


HANDLERS: dict[type, tuple[str, Handler]] = {
    ConnectRequest: ("connect", connect.connect),
    SubscribeRequest: ("subscribe", subscribe.subscribe),
    UnsubscribeRequest: ("unsubscribe", subscribe.unsubscribe),
    PublishRequest: ("publish", publish.publish),
    PresenceRequest: ("presence", read.presence),
    PresenceStatsRequest: ("presence_stats", read.presence_stats),
    HistoryRequest: ("history", read.history),
    PingRequest: ("ping", connect.ping),
    SendRequest: ("send", connect.send),
    RPCRequest: ("rpc", connect.rpc),
    RefreshRequest: ("refresh", connect.refresh),
    SubRefreshRequest: ("sub_refresh", subscribe.sub_refresh),
    RoomMessage: ("message", publish.room_message),
    LobbyFrame: ("lobby", publish.lobby_frame),
    InvalidRequest: ("invalid", _invalid),
}
"""Each request type with the name of its command, as metrics show it, and its function."""

UNAUTHENTICATED = frozenset({ConnectRequest, LobbyFrame, InvalidRequest, PingRequest})
"""What may be asked before anybody knows who asks. (A native ping is refused by its function.)"""


async def dispatch(session: Session, command: Command) -> None:
    """Handles one command to the end: exactly one reply if it has a ref, or the end of the session. Never raises."""
    request = command.request
    if isinstance(request, Pong):
        _pong(session)
        return
    clock = session.node.clock
    started_s = clock.now_s()
    method, handler = HANDLERS[type(request)]
    error, detail = 0, ""
    try:
        if session.phase is not SessionPhase.CONNECTED:
            await _require_connected(session, type(request))
        await handler(session, command.ref, request)
    except CommandError as failure:
        error, detail = failure.code.code, failure.detail
        if command.ref is not None and not session.has_ended():
            session.reply_error(command.ref, failure)
    except Disconnect as failure:
        error, detail = failure.code.code, failure.detail
        session.end(failure.code, failure.detail)
    except PayloadError as failure:
        error, detail = INAPPROPRIATE_PROTOCOL.code, str(failure)
        session.end(INAPPROPRIATE_PROTOCOL, str(failure))
    except Exception as failure:  # noqa: BLE001 - one client's trouble must not reach the loop; it is reported
        error, detail = INTERNAL.code, repr(failure)
        session.node.report(method, failure)
        _fail(session, command)
    namespace = session.node.namespaces.label(cast(str, getattr(request, "channel", "")))
    session.node.events.emit(
        CommandHandled(session.client, session.user, method, namespace, clock.now_s() - started_s, error, detail)
    )


def _pong(session: Session) -> None:
    try:
        if session.phase is not SessionPhase.CONNECTED:
            raise Disconnect(BAD_PROTOCOL, "the first command must be connect")
        if not session.traits.app_pings:
            raise Disconnect(BAD_PROTOCOL, "a pong came, but pings are the transport's")
        session.keepalive.pong(solicited_only=True)
    except Disconnect as failure:
        session.end_with(failure)


async def _require_connected(session: Session, request_type: type) -> None:
    """Native clients must connect first; plain ones become the anonymous user on their first message, if allowed."""
    if request_type is ConnectRequest:
        return
    if session.traits.connect_first:
        raise Disconnect(BAD_PROTOCOL, "the first command must be connect")
    if session.phase is SessionPhase.NEW and request_type not in UNAUTHENTICATED:
        _, entrances = await connect.establish(session, ConnectRequest())
        for entrance in entrances:
            subscribe.complete(session, entrance, subscribe.go_live(entrance))


def _fail(session: Session, command: Command) -> None:
    if session.has_ended():
        return
    if command.ref is None:
        session.end(SERVER_ERROR)
    else:
        session.reply_error(command.ref, CommandError(INTERNAL))
