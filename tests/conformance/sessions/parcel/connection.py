"""One client of the protocol: from its messages to the operations of its session, and from results to replies."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple

from msgspec import Raw, Struct

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    BAD_REQUEST,
    METHOD_NOT_FOUND,
    SLOW,
    CommandError,
    Disconnect,
    DisconnectCode,
)
from beaconfire.model.events import LimitHit
from beaconfire.model.position import StreamPosition
from beaconfire.model.requests import Conflate, ConnectionRequest, SubscriptionRequest
from beaconfire.model.results import ConnectionStart, SubscriptionStart
from beaconfire.protocols.port import CommandOrder, Frame, Payload, ProtocolError, Wire
from beaconfire.session.operations.assembly import Operations
from beaconfire.session.session import Session, SessionPhase
from beaconfire.transports.port import Transport
from tests.conformance.sessions.parcel.delivery import NumberedWire, info_fields, publication_fields
from tests.conformance.sessions.parcel.messages import (
    Ack,
    ClientMessage,
    Command,
    Emit,
    Hello,
    MessageBuffer,
    Ping,
    decode_args,
    encode,
)


class Args(Struct):
    """The arguments of all events."""

    channel: str = ""
    token: str = ""
    data: bytes = b""
    method: str = ""
    since: tuple[int, str] | None = None
    recoverable: bool = False
    limit: int = 0
    reverse: bool = False
    echo: bool = True
    join_leave: bool = False
    max_rate: float | None = None

    @property
    def position(self) -> StreamPosition | None:
        return StreamPosition(*self.since) if self.since is not None else None


class ParcelConnection:
    """Implements `protocols.port.ProtocolConnection`."""

    def __init__(self, session: Session, operations: Operations) -> None:
        self._session = session
        self._operations = operations
        self.buffer = MessageBuffer()
        self.secret = ""
        self._last_event = 0
        """The number of the client's last event. A client that has moved sends its last events again."""
        self._wire.when_full = self._on_full

    @property
    def _wire(self) -> NumberedWire:
        wire = self._session.wire
        assert isinstance(wire, NumberedWire), "each connection has its own wire"
        return wire

    def begin(self, hello: Hello) -> None:
        """Connects a new session."""
        self.secret = hello.secret
        self._session.run_commands((Command(0, "hello", hello),))

    def move_to(self, transport: Transport, framing: Wire, acked: int) -> bool:
        """Replaces the transport of the session. False if messages that the client needs are forgotten."""
        if not self._wire.acknowledge(acked):
            return False
        self._wire.when_full, wire = None, self._wire.moved(framing)
        wire.when_full = self._on_full
        self.buffer = MessageBuffer()
        frames: list[Frame] = wire.frames()
        self._session.move_to(transport, wire, frames)
        self._send({"resumed": {"event": self._last_event}})
        return True

    # From the session

    def receive(self, data: bytes, binary: bool) -> None:
        session = self._session
        try:
            messages = self.buffer.decode(data)
        except ProtocolError as error:
            session.end(BAD_PROTOCOL, str(error))
            return
        session.count(max(1, len(messages)), len(data))
        self.handle(messages)

    def handle(self, messages: list[ClientMessage]) -> None:
        """Handles messages in order: acknowledgements and pings at once, events after those before."""
        commands = []
        for message in messages:
            if self._session.has_ended():
                return
            match message:
                case Ping():
                    self._session.keepalive.client_ping()
                    self._send({"pong": True})
                case Ack(n):
                    if not self._wire.acknowledge(n):
                        self._session.end(BAD_PROTOCOL, f"message {n} was acknowledged before or never sent")
                case Emit(n, event, args):
                    if n > self._last_event:
                        self._last_event = n
                        commands.append(Command(n, event, args))
                case Hello():
                    self._session.end(BAD_PROTOCOL, "hello must be the first message")
        if commands and not self._session.has_ended():
            self._session.run_commands(commands)

    def execute(self, command: Command) -> Coroutine[Any, Any, None]:
        return self._operations.execution.run(
            self._session, command.event, "", self._run(command), command.n, self._reply_error
        )

    async def _run(self, command: Command) -> None:
        row = _ROWS.get(command.event)
        if row is None:
            raise CommandError(METHOD_NOT_FOUND, f"no event {command.event!r}")
        if isinstance(command.args, Hello):
            await row.handler(self, 0, command.args)
            return
        if self._session.phase is not SessionPhase.CONNECTED:
            raise Disconnect(BAD_PROTOCOL, "the session is not connected")
        try:
            args = decode_args(Args, command.args)
        except ProtocolError as error:
            raise CommandError(BAD_REQUEST, str(error)) from None
        await row.handler(self, command.n, args)

    def never_suspends(self, command: Command) -> bool:
        if isinstance(command.args, Hello):
            return not self._operations.connect_may_suspend(len(command.args.channels), command.args.token)
        row = _ROWS.get(command.event)
        return row is None or row.decision not in self._operations.suspending

    def order(self, command: Command) -> CommandOrder:
        return CommandOrder.BESIDE if command.event == "rpc" else CommandOrder.ALONE

    def ping(self) -> None:
        raise AssertionError("the client sends the pings")

    def on_ended(self, code: DisconnectCode) -> None:
        """Says goodbye, because not every transport tells its peer a code."""
        self._wire.when_full = None
        self._send({"bye": code.code})

    def _on_full(self) -> None:
        """Called during fan-out, where the session must not end."""
        self._session.context.schedule(self._end_as_slow)

    def _end_as_slow(self) -> None:
        session = self._session
        if not session.has_ended():
            session.context.events.emit(LimitHit("parcel.unacknowledged", session.client))
            session.end(SLOW)

    # Events

    async def _hello(self, n: int, hello: Hello) -> None:
        channels = {channel: SubscriptionRequest(channel) for channel in hello.channels}
        request = ConnectionRequest(hello.token, subscriptions=channels)
        await self._operations.connecting.connect(self._session, request, self._welcome)

    def _welcome(self, start: ConnectionStart) -> None:
        subscriptions = {started.channel: _started(started) for started in start.subscriptions}
        self._send({"welcome": {"id": start.client, "ttl": start.ttl_s, "subs": subscriptions}})

    async def _subscribe(self, n: int, args: Args) -> None:
        request = SubscriptionRequest(
            args.channel,
            args.token,
            since=args.position,
            recoverable=args.recoverable,
            join_leave=args.join_leave,
            conflate=Conflate(args.max_rate) if args.max_rate is not None else None,
        )
        await self._operations.subscribing.subscribe(
            self._session, request, lambda start: self._reply(n, _started(start))
        )

    async def _unsubscribe(self, n: int, args: Args) -> None:
        self._operations.unsubscribe(self._session, args.channel)
        self._reply(n, {})

    async def _publish(self, n: int, args: Args) -> None:
        outcome = await self._operations.publishing.publish(self._session, args.channel, Raw(args.data), echo=args.echo)
        self._reply(n, {"offset": outcome.position.offset})

    async def _history(self, n: int, args: Args) -> None:
        page = await self._operations.reading.history(
            self._session, args.channel, args.limit, args.position, args.reverse
        )
        publications = [publication_fields(publication) for publication in page.publications]
        self._reply(n, {"publications": publications, "offset": page.position.offset, "epoch": page.position.epoch})

    async def _presence(self, n: int, args: Args) -> None:
        members = await self._operations.reading.presence(self._session, args.channel)
        self._reply(n, {"clients": {client: info_fields(info) for client, info in members.items()}})

    async def _presence_stats(self, n: int, args: Args) -> None:
        stats = await self._operations.reading.presence_stats(self._session, args.channel)
        self._reply(n, {"clients": stats.num_clients, "users": stats.num_users})

    async def _rpc(self, n: int, args: Args) -> None:
        result = await self._operations.decisions.rpc(self._session, args.method, Raw(args.data))
        self._reply(n, {"data": bytes(result)})

    async def _message(self, n: int, args: Args) -> None:
        await self._operations.decisions.message(self._session, Raw(args.data))
        self._reply(n, {})

    async def _refresh(self, n: int, args: Args) -> None:
        self._reply(n, {"ttl": (await self._operations.refreshing.refresh(self._session, args.token)).ttl_s})

    async def _sub_refresh(self, n: int, args: Args) -> None:
        renewal = await self._operations.refreshing.sub_refresh(self._session, args.channel, args.token)
        self._reply(n, {"ttl": renewal.ttl_s})

    # To the client

    def _reply(self, n: int, result: Mapping[str, Any]) -> None:
        self._send({"ack": n, "result": result})

    def _reply_error(self, ref: object, error: CommandError) -> None:
        self._send({"ack": ref, "error": error.code.code})

    def _send(self, message: Mapping[str, Any]) -> None:
        self._session.send(Payload(encode(message), binary=True))


def _started(start: SubscriptionStart) -> dict[str, Any]:
    return {
        "position": start.position,
        "recovered": start.recovered if start.was_recovering else None,
        "publications": [publication_fields(publication) for publication in start.publications],
        "ttl": start.ttl_s,
    }


class _Row(NamedTuple):
    handler: Callable[[ParcelConnection, int, Any], Coroutine[Any, Any, None]]
    decision: str = ""
    """The decision on which suspending depends. Empty if the event never suspends."""


_ROWS: Final[Mapping[str, _Row]] = {
    "hello": _Row(ParcelConnection._hello, "connect"),
    "subscribe": _Row(ParcelConnection._subscribe, "subscribe"),
    "unsubscribe": _Row(ParcelConnection._unsubscribe),
    "publish": _Row(ParcelConnection._publish, "publish"),
    "history": _Row(ParcelConnection._history, "history"),
    "presence": _Row(ParcelConnection._presence, "presence"),
    "presence_stats": _Row(ParcelConnection._presence_stats, "presence"),
    "rpc": _Row(ParcelConnection._rpc, "rpc"),
    "message": _Row(ParcelConnection._message, "message"),
    "refresh": _Row(ParcelConnection._refresh, "refresh"),
    "sub_refresh": _Row(ParcelConnection._sub_refresh, "sub_refresh"),
}
