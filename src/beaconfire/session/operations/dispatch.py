"""From a command to its handler, and from a failure to the reply or disconnect that the client gets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, cast

from beaconfire.base.clock import Clock
from beaconfire.base.errors import (
    BAD_PROTOCOL,
    INAPPROPRIATE_PROTOCOL,
    INTERNAL,
    SERVER_ERROR,
    CommandError,
    Disconnect,
    PayloadError,
)
from beaconfire.channels.namespaces import Namespaces
from beaconfire.model.events import CommandHandled, EventSink, report_error
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
from beaconfire.session.operations.connect import ConnectHandler
from beaconfire.session.operations.messages import MessageHandler
from beaconfire.session.operations.publish import PublishHandler
from beaconfire.session.operations.read import ReadHandler
from beaconfire.session.operations.refresh import RefreshHandler
from beaconfire.session.operations.subscribe import SubscribeHandler
from beaconfire.session.session import Session, SessionPhase

Handler: TypeAlias = Callable[[Session, object, Any], Awaitable[None]]
"""Runs one command: takes the session, the command's ref and its request. Raises CommandError and Disconnect."""

_WITHOUT_CONNECT: Final = frozenset({ConnectRequest, LobbyFrame, InvalidRequest, PingRequest})
"""Requests that a session of the plain protocol may send without an identity. Native sessions connect first."""


class Dispatcher:
    """The table of commands, and the one place that turns their failures into replies and disconnects."""

    def __init__(
        self,
        connect: ConnectHandler,
        subscribe: SubscribeHandler,
        publish: PublishHandler,
        read: ReadHandler,
        refresh: RefreshHandler,
        messages: MessageHandler,
        namespaces: Namespaces,
        clock: Clock,
        events: EventSink,
    ) -> None:
        self._connect = connect
        self._namespaces = namespaces
        self._now_s = clock.now_s
        self._events = events
        self.handlers: dict[type, tuple[str, Handler]] = {
            ConnectRequest: ("connect", connect.connect),
            SubscribeRequest: ("subscribe", subscribe.subscribe),
            UnsubscribeRequest: ("unsubscribe", subscribe.unsubscribe),
            PublishRequest: ("publish", publish.publish),
            PresenceRequest: ("presence", read.presence),
            PresenceStatsRequest: ("presence_stats", read.presence_stats),
            HistoryRequest: ("history", read.history),
            PingRequest: ("ping", messages.ping),
            SendRequest: ("send", messages.send),
            RPCRequest: ("rpc", messages.rpc),
            RefreshRequest: ("refresh", refresh.refresh),
            SubRefreshRequest: ("sub_refresh", refresh.sub_refresh),
            RoomMessage: ("message", publish.room_message),
            LobbyFrame: ("lobby", publish.lobby_frame),
            InvalidRequest: ("invalid", _invalid),
        }
        """The name of each command, as metrics show it, and its handler, by type of request."""

    async def dispatch(self, session: Session, command: Command) -> None:
        """Runs one command to its end. Never raises.

        A command with a ref gets exactly one reply, unless the session ends.
        """
        request = command.request
        if isinstance(request, Pong):
            _pong(session)
            return
        started_s = self._now_s()
        method, handler = self.handlers[type(request)]
        error, detail = 0, ""
        try:
            if session.phase is not SessionPhase.CONNECTED:
                await self._require_connected(session, type(request))
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
        except Exception as failure:  # noqa: BLE001 - reported; one client's failure must not reach the event loop
            error, detail = INTERNAL.code, repr(failure)
            report_error(self._events, method, failure)
            _fail(session, command)
        namespace = self._namespaces.label(cast(str, getattr(request, "channel", "")))
        duration_s = self._now_s() - started_s
        self._events.emit(CommandHandled(session.client, session.user, method, namespace, duration_s, error, detail))

    async def _require_connected(self, session: Session, request_type: type) -> None:
        """Disconnects a native session that has not connected. Connects a plain session as the anonymous user."""
        if request_type is ConnectRequest:
            return
        if session.traits.connect_first:
            raise Disconnect(BAD_PROTOCOL, "the first command must be connect")
        if session.phase is SessionPhase.NEW and request_type not in _WITHOUT_CONNECT:
            await self._connect.connect_anonymously(session)


async def _invalid(session: Session, ref: object, request: InvalidRequest) -> None:
    raise CommandError(request.code, request.detail)


def _pong(session: Session) -> None:
    try:
        if session.phase is not SessionPhase.CONNECTED:
            raise Disconnect(BAD_PROTOCOL, "the first command must be connect")
        if not session.traits.app_pings:
            raise Disconnect(BAD_PROTOCOL, "a pong came, but pings are the transport's")
        session.keepalive.pong(solicited_only=True)
    except Disconnect as failure:
        session.end_with(failure)


def _fail(session: Session, command: Command) -> None:
    if session.has_ended():
        return
    if command.ref is None:
        session.end(SERVER_ERROR)
    else:
        session.reply_error(command.ref, CommandError(INTERNAL))
