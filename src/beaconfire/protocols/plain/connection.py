"""One client of the plain protocol: from its messages to the operations of its session, and from results to replies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple

from beaconfire.base.errors import PERMISSION_DENIED, CommandError, DisconnectCode
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.model.results import ConnectionStart
from beaconfire.protocols.plain import client_messages, server_messages
from beaconfire.protocols.plain.requests import (
    ClientPing,
    InvalidMessage,
    LeaveRoom,
    LobbyFrame,
    PlainCommand,
    Ref,
    RoomHistory,
    RoomMessage,
    RoomPresence,
    RoomRefresh,
    TokenRefresh,
)
from beaconfire.protocols.port import CommandOrder, Payload
from beaconfire.session.operations.assembly import Operations
from beaconfire.session.session import Session, SessionPhase


class PlainConnection:
    """Implements `protocols.port.ProtocolConnection`.

    Each frame holds one message, in both directions. No input ends the session. A client that sends another message
    than a handshake first is connected as the anonymous user. If there is a lobby, the session is subscribed to it
    from the start.
    """

    __slots__ = ("_lobby_channel", "_operations", "_session")

    def __init__(self, session: Session, operations: Operations, lobby_channel: str | None) -> None:
        """`lobby_channel` as in `PlainCodec`."""
        self._session = session
        self._operations = operations
        self._lobby_channel = lobby_channel
        if lobby_channel is not None:
            operations.enter_for_protocol(session, lobby_channel)

    # From the session

    def receive(self, data: bytes, binary: bool) -> None:
        self._session.count(1, len(data))
        if not self._session.has_ended():
            command = client_messages.decode(data, binary, lobby=self._lobby_channel is not None)
            self._session.run_commands((command,))

    def execute(self, command: PlainCommand) -> Coroutine[Any, Any, None]:
        request = command.request
        row = _ROWS[type(request)]
        channel: str = getattr(request, "channel", "")
        return self._operations.execution.run(
            self._session, row.method, channel, self._run(row, command), command.ref, self._reply_error
        )

    async def _run(self, row: _Row, command: PlainCommand) -> None:
        if row.needs_identity and self._session.phase is SessionPhase.NEW:
            await self._operations.connecting.connect(self._session, ConnectionRequest(), _ignore)
        await row.handler(self, command.ref, command.request)

    def never_suspends(self, command: PlainCommand) -> bool:
        request, operations = command.request, self._operations
        if isinstance(request, ConnectionRequest):
            return not operations.connect_may_suspend(len(request.subscriptions), request.token)
        row = _ROWS[type(request)]
        if row.needs_identity and self._session.phase is SessionPhase.NEW and "connect" in operations.suspending:
            return False
        return row.decision not in operations.suspending or operations.is_immediate(
            row.decision, getattr(request, "channel", "")
        )

    def order(self, command: PlainCommand) -> CommandOrder:
        """The first message may have to connect its session before the next one."""
        is_connected = self._session.phase is SessionPhase.CONNECTED
        if is_connected and self._operations.publishes_overlap and isinstance(command.request, RoomMessage):
            return CommandOrder.OVERLAPPING
        return CommandOrder.ALONE

    def ping(self) -> None:
        raise AssertionError("the plain protocol uses the pings of the transport")

    def on_ended(self, code: DisconnectCode) -> None:
        """Nothing refers to this object any more."""

    # Messages

    async def _handshake(self, ref: Ref, request: ConnectionRequest) -> None:
        if self._session.phase is not SessionPhase.NEW:
            raise CommandError(PERMISSION_DENIED, "handshake must be the first message of a connection")
        version = self._operations.node.product
        await self._operations.connecting.connect(
            self._session, request, lambda start: self._send(server_messages.welcome(ref, version, start))
        )

    async def _join(self, ref: Ref, request: SubscriptionRequest) -> None:
        await self._operations.subscribing.subscribe(
            self._session, request, lambda start: self._send(server_messages.joined(ref, start))
        )

    async def _leave(self, ref: Ref, request: LeaveRoom) -> None:
        self._operations.unsubscribe(self._session, request.channel)
        self._send(server_messages.left(ref))

    async def _message(self, ref: Ref, request: RoomMessage) -> None:
        publishing = self._operations.publishing
        outcome = await publishing.publish(self._session, request.channel, request.data, echo=request.echo)
        self._send(server_messages.ack(ref, outcome.position, outcome.durability))

    async def _presence(self, ref: Ref, request: RoomPresence) -> None:
        members = await self._operations.reading.presence(self._session, request.channel)
        self._send(server_messages.presence(ref, members))

    async def _history(self, ref: Ref, request: RoomHistory) -> None:
        page = await self._operations.reading.history(
            self._session, request.channel, request.limit, request.since, request.reverse
        )
        self._send(server_messages.history(ref, page.publications, page.position))

    async def _refresh(self, ref: Ref, request: TokenRefresh) -> None:
        renewal = await self._operations.refreshing.refresh(self._session, request.token)
        self._send(server_messages.refreshed(ref, renewal.ttl_s))

    async def _room_refresh(self, ref: Ref, request: RoomRefresh) -> None:
        renewal = await self._operations.refreshing.sub_refresh(self._session, request.channel, request.token)
        self._send(server_messages.refreshed(ref, renewal.ttl_s))

    async def _ping(self, ref: Ref, request: ClientPing) -> None:
        self._send(server_messages.pong(ref))

    async def _invalid(self, ref: Ref, request: InvalidMessage) -> None:
        raise CommandError(request.code, request.detail)

    async def _lobby_frame(self, ref: None, request: LobbyFrame) -> None:
        """Sends the frame to every connection in the lobby, the sender too. A connection needs no permission."""
        channel = self._lobby_channel
        assert channel is not None, "lobby frames are decoded only if there is a lobby"
        await self._operations.publishing.publish_for_protocol(self._session, channel, request.data, request.tags)

    # To the client

    def _send(self, message: bytes) -> None:
        self._session.send(Payload(message))

    def _reply_error(self, ref: object, error: CommandError) -> None:
        """The detail of a malformed message is always included: it describes only the client's own message, and there
        is no SDK that would check the message."""
        assert isinstance(ref, Ref), "only commands with a ref are answered"
        detail = error.detail if ref.malformed or self._operations.options.debug_reasons else ""
        self._session.send(Payload(server_messages.encode_error(ref, error, detail)))


def _ignore(start: ConnectionStart) -> None:
    """A client that sent no handshake gets no reply to it."""


class _Row(NamedTuple):
    """One kind of message. `method` is its name in metrics.

    `decision` is the decision on which suspending depends, empty if the message never suspends.
    """

    method: str
    handler: Callable[[PlainConnection, Any, Any], Awaitable[None]]
    decision: str = ""
    needs_identity: bool = True


_ROWS: Final[Mapping[type, _Row]] = {
    ConnectionRequest: _Row("connect", PlainConnection._handshake, "connect", needs_identity=False),
    SubscriptionRequest: _Row("subscribe", PlainConnection._join, "subscribe"),
    LeaveRoom: _Row("unsubscribe", PlainConnection._leave),
    RoomMessage: _Row("message", PlainConnection._message, "publish"),
    RoomPresence: _Row("presence", PlainConnection._presence, "presence"),
    RoomHistory: _Row("history", PlainConnection._history, "history"),
    TokenRefresh: _Row("refresh", PlainConnection._refresh, "refresh"),
    RoomRefresh: _Row("sub_refresh", PlainConnection._room_refresh, "sub_refresh"),
    ClientPing: _Row("ping", PlainConnection._ping, needs_identity=False),
    LobbyFrame: _Row("lobby", PlainConnection._lobby_frame, "publish", needs_identity=False),
    InvalidMessage: _Row("invalid", PlainConnection._invalid, needs_identity=False),
}
