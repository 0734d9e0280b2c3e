"""The Centrifuge client protocol: from a client's commands to the operations of its session, and from their results to
replies (sections 5 to 13 of the protocol reference).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    PERMISSION_DENIED,
    UNAUTHORIZED,
    CommandError,
    Disconnect,
    DisconnectCode,
)
from beaconfire.model.position import StreamPosition
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.model.results import ConnectionStart, SubscriptionStart
from beaconfire.protocols.centrifuge.requests import (
    Command,
    ConnectRequest,
    HistoryRequest,
    PingRequest,
    Pong,
    PresenceRequest,
    PresenceStatsRequest,
    PublishRequest,
    RefreshRequest,
    RPCRequest,
    SendRequest,
    SubRefreshRequest,
    SubscribeRequest,
    UnsubscribeRequest,
)
from beaconfire.protocols.centrifuge.results import (
    ConnectResult,
    HistoryResult,
    PresenceResult,
    PresenceStatsResult,
    PublishResult,
    RefreshResult,
    Result,
    RPCResult,
    SubRefreshResult,
    SubscribeResult,
    UnsubscribeResult,
)
from beaconfire.protocols.port import Codec, CommandOrder, Payload, ProtocolError
from beaconfire.session.operations.assembly import Operations
from beaconfire.session.session import Session, SessionPhase
from beaconfire.transports.traits import Pings

_PUBLISHED: Final = PublishResult()

REJECT_UNRECOVERED: Final = 2
"""The bit of `SubscribeRequest.flag` that asks for error 112 instead of `recovered: false`."""


class CentrifugeCodec(Codec, Protocol):
    """One encoding of the whole protocol. Has no state, and never suspends."""

    def decode(self, data: bytes, binary: bool) -> Sequence[Command]:
        """Returns all commands of one frame, in the order of the frame; at least one.

        The result must not refer to the memory of `data`, because commands can live much longer than the frame. Raises
        ProtocolError, and nothing else, for bytes that are no message of the protocol.
        """

    def encode_reply(self, ref: object, result: Result) -> Payload:
        """Encodes the successful reply to the command with this `ref`. Raises PayloadError."""

    def encode_error(self, ref: object, error: CommandError, detail: str) -> Payload:
        """Encodes the error reply to the command with this `ref`. `detail` is the text that the client may see; empty
        if `debug_reasons` is off."""

    def encode_ping(self) -> Payload:
        """Encodes a ping of the protocol."""


class CentrifugeConnection:
    """Implements `protocols.port.ProtocolConnection`."""

    __slots__ = ("_codec", "_operations", "_session")

    def __init__(self, session: Session, operations: Operations, codec: CentrifugeCodec) -> None:
        """`codec` must be the codec of the session's wire."""
        self._session = session
        self._operations = operations
        self._codec = codec

    # From the session

    def receive(self, data: bytes, binary: bool) -> None:
        """Runs or queues the commands of one frame. Pongs are handled at once, however many commands wait."""
        session = self._session
        try:
            commands = self._codec.decode(data, binary)
        except ProtocolError as error:
            session.end(BAD_PROTOCOL, str(error))
            return
        session.count(len(commands), len(data))
        if len(commands) == 1 and not isinstance(commands[0].request, Pong):
            if not session.has_ended():
                session.run_commands(commands)
            return
        others = []
        for command in commands:
            if session.has_ended():
                return
            if isinstance(command.request, Pong):
                self._pong()
            else:
                others.append(command)
        if others and not session.has_ended():
            session.run_commands(others)

    def execute(self, command: Command) -> Coroutine[Any, Any, None]:
        ref, request = command
        row = _ROWS[type(request)]
        channel: str = getattr(request, "channel", "")
        if self._session.phase is not SessionPhase.CONNECTED and row.method != "connect":
            operation = _refuse("the first command must be connect")
        elif row.topic and not channel:
            operation = _refuse(f"{row.topic}: channel must not be empty")
        else:
            operation = row.handler(self, ref, request)
        return self._operations.execution.run(self._session, row.method, channel, operation, ref, self.reply_error)

    def never_suspends(self, command: Command) -> bool:
        request = command.request
        decision = _ROWS[type(request)].decision
        if decision != "connect":
            operations = self._operations
            return decision not in operations.suspending or operations.is_immediate(
                decision, getattr(request, "channel", "")
            )
        assert isinstance(request, ConnectRequest), "only a connect asks for this decision"
        return not self._operations.connect_may_suspend(len(request.subs), request.token or request.ticket)

    def order(self, command: Command) -> CommandOrder:
        """A slow RPC delays no other command."""
        match command.request:
            case PublishRequest() if self._operations.publishes_overlap:
                return CommandOrder.OVERLAPPING
            case RPCRequest():
                return CommandOrder.BESIDE
            case _:
                return CommandOrder.ALONE

    def ping(self) -> None:
        self._session.send(self._codec.encode_ping())

    def on_ended(self, code: DisconnectCode) -> None:
        """Nothing refers to this object any more."""

    # Commands

    async def connect(self, ref: object, request: ConnectRequest) -> None:
        session = self._session
        if session.phase is not SessionPhase.NEW:
            raise Disconnect(BAD_PROTOCOL, "connect was sent twice")
        try:
            await self._operations.connecting.connect(
                session, connection_request(request), lambda start: self.on_connected(ref, start)
            )
        except CommandError as error:
            if error.code is UNAUTHORIZED:
                raise Disconnect(BAD_PROTOCOL, error.detail) from error
            raise

    def on_connected(self, ref: object, start: ConnectionStart) -> None:
        """Answers the connect command, before anything else is sent to the client. Raises PayloadError."""
        session, operations = self._session, self._operations
        options, pings = operations.options, session.traits.pings
        # Rounded up, because 0 would mean that the server sends no pings, and clients would not answer them.
        ping_s = math.ceil(options.ping_interval) if pings is not Pings.TRANSPORT else 0
        secret = session.transport.secret
        result = ConnectResult(
            client=start.client,
            version=operations.node.product,
            expires=start.ttl_s > 0,
            ttl=start.ttl_s,
            data=start.data,
            subs={subscription.channel: subscribe_result(subscription) for subscription in start.subscriptions},
            ping=ping_s,
            pong=ping_s > 0 and pings is Pings.PROTOCOL,
            session=secret,
            node=operations.node.uid if secret else "",
            time=int(operations.clock.unix_s() * 1000) if options.connect_include_server_time else 0,
            ticket=start.ticket,
        )
        self.reply(ref, result)

    async def _subscribe(self, ref: object, request: SubscribeRequest) -> None:
        if request.type != 0:
            self._operations.subscribing.check_channel(self._session, request.channel)  # reported first
            raise CommandError(PERMISSION_DENIED, f"type {request.type}: only stream subscriptions (0) exist")
        await self._operations.subscribing.subscribe(
            self._session,
            subscription_request(request.channel, request),
            lambda start: self.reply(ref, subscribe_result(start)),
        )

    async def _unsubscribe(self, ref: object, request: UnsubscribeRequest) -> None:
        """Succeeds as well if the session is not subscribed."""
        self._operations.unsubscribe(self._session, request.channel)
        self.reply(ref, UnsubscribeResult())

    async def _publish(self, ref: object, request: PublishRequest) -> None:
        """The publisher receives its own publication if it is subscribed."""
        await self._operations.publishing.publish(self._session, request.channel, request.data)
        self.reply(ref, _PUBLISHED)

    async def _presence(self, ref: object, request: PresenceRequest) -> None:
        members = await self._operations.reading.presence(self._session, request.channel)
        self.reply(ref, PresenceResult(dict(members)))

    async def _presence_stats(self, ref: object, request: PresenceStatsRequest) -> None:
        stats = await self._operations.reading.presence_stats(self._session, request.channel)
        self.reply(ref, PresenceStatsResult(stats.num_clients, stats.num_users))

    async def _history(self, ref: object, request: HistoryRequest) -> None:
        since = StreamPosition(request.since.offset, request.since.epoch) if request.since is not None else None
        page = await self._operations.reading.history(
            self._session, request.channel, request.limit, since, request.reverse
        )
        self.reply(ref, HistoryResult(list(page.publications), page.position.epoch, page.position.offset))

    async def _rpc(self, ref: object, request: RPCRequest) -> None:
        self.reply(ref, RPCResult(await self._operations.decisions.rpc(self._session, request.method, request.data)))

    async def _send(self, ref: object, request: SendRequest) -> None:
        await self._operations.decisions.message(self._session, request.data)

    async def _ping_command(self, ref: object, request: PingRequest) -> None:
        raise Disconnect(BAD_PROTOCOL, "ping is not a command of this protocol")  # section 5, rule 3

    async def _refresh(self, ref: object, request: RefreshRequest) -> None:
        session = self._session
        ttl_s, ticket = await self._operations.refreshing.refresh(session, request.token)
        version = self._operations.node.product
        self.reply(
            ref, RefreshResult(client=session.client, version=version, expires=ttl_s > 0, ttl=ttl_s, ticket=ticket)
        )

    async def _sub_refresh(self, ref: object, request: SubRefreshRequest) -> None:
        refreshing = self._operations.refreshing
        ttl_s, ticket = await refreshing.sub_refresh(self._session, request.channel, request.token)
        self.reply(ref, SubRefreshResult(expires=ttl_s > 0, ttl=ttl_s, ticket=ticket))

    def _pong(self) -> None:
        session = self._session
        if session.phase is not SessionPhase.CONNECTED:
            session.end(BAD_PROTOCOL, "the first command must be connect")
        elif session.traits.pings is Pings.TRANSPORT:
            session.end(BAD_PROTOCOL, "a pong came, but pings are the transport's")
        elif not session.keepalive.pong():
            session.end(BAD_PROTOCOL, "a pong came without a ping")

    # To the client

    def reply(self, ref: object, result: Result) -> None:
        """Answers the command with this ref. Raises PayloadError."""
        self._session.send(self._codec.encode_reply(ref, result))

    def reply_error(self, ref: object, error: CommandError) -> None:
        """Answers the command with this ref with an error."""
        self._session.send(self.encode_error(ref, error))

    def encode_error(self, ref: object, error: CommandError) -> Payload:
        """The error reply. The detail is left out unless the client may see it."""
        detail = field_names(error.detail) if self._operations.options.debug_reasons else ""
        return self._codec.encode_error(ref, error, detail)


async def _refuse(detail: str) -> None:
    raise Disconnect(BAD_PROTOCOL, detail)


_Handler: TypeAlias = Callable[[CentrifugeConnection, object, Any], Coroutine[Any, Any, None]]
"""Runs one command: takes the connection, the command's ref and its request."""


class _Row(NamedTuple):
    """One kind of command. `method` is its name in metrics.

    `decision` is the decision on which suspending depends, empty if the command never suspends. `topic` is the name of
    the command in the error for a missing channel, empty if the command may have none.
    """

    method: str
    handler: _Handler
    decision: str = ""
    topic: str = ""


_ROWS: Final[Mapping[type, _Row]] = {
    ConnectRequest: _Row("connect", CentrifugeConnection.connect, "connect"),
    SubscribeRequest: _Row("subscribe", CentrifugeConnection._subscribe, "subscribe", "subscribe"),
    UnsubscribeRequest: _Row("unsubscribe", CentrifugeConnection._unsubscribe, "", "unsubscribe"),
    PublishRequest: _Row("publish", CentrifugeConnection._publish, "publish", "publish"),
    PresenceRequest: _Row("presence", CentrifugeConnection._presence, "presence", "presence"),
    PresenceStatsRequest: _Row("presence_stats", CentrifugeConnection._presence_stats, "presence", "presence"),
    HistoryRequest: _Row("history", CentrifugeConnection._history, "history", "history"),
    PingRequest: _Row("ping", CentrifugeConnection._ping_command),
    SendRequest: _Row("send", CentrifugeConnection._send, "message"),
    RPCRequest: _Row("rpc", CentrifugeConnection._rpc, "rpc"),
    RefreshRequest: _Row("refresh", CentrifugeConnection._refresh, "refresh"),
    SubRefreshRequest: _Row("sub_refresh", CentrifugeConnection._sub_refresh, "sub_refresh"),
}


def connection_request(request: ConnectRequest) -> ConnectionRequest:
    """The request in the terms of the operations."""
    return ConnectionRequest(
        token=request.token,
        data=request.data,
        subscriptions={channel: subscription_request(channel, entry) for channel, entry in request.subs.items()},
        name=request.name,
        version=request.version,
        headers=request.headers,
        ticket=request.ticket,
        wants_tickets=request.want_tickets,
    )


def subscription_request(channel: str, request: SubscribeRequest) -> SubscriptionRequest:
    """The request in the terms of the operations."""
    return SubscriptionRequest(
        channel,
        request.token,
        request.data,
        StreamPosition(request.offset, request.epoch) if request.recover else None,
        bool(request.flag & REJECT_UNRECOVERED),
        request.positioned,
        request.recoverable,
        request.join_leave,
        request.delta,
        request.tf,
        request.conflate,
        request.ticket,
    )


def subscribe_result(start: SubscriptionStart) -> SubscribeResult:
    """The result in the terms of the protocol."""
    offset, epoch = start.position or (0, "")
    return SubscribeResult(
        expires=start.ttl_s > 0,
        ttl=start.ttl_s,
        recoverable=start.recoverable,
        epoch=epoch,
        publications=list(start.publications),
        recovered=start.recovered,
        offset=offset,
        positioned=start.position is not None,
        data=start.data,
        was_recovering=start.was_recovering,
        delta=start.has_patches,
        ticket=start.ticket,
    )


def field_names(detail: str) -> str:
    """The text of an error with the field names of this protocol."""
    return detail.replace("tags_filter", "tf")
