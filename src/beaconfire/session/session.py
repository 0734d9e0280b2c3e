"""One client's session: identity, subscriptions, the queue of its commands, and its end.

This module holds the state. `operations` holds what happens when a client sends a command. A session lives on the
event loop's thread. Its commands run one after the other: while one command waits for the engine, the next commands
are queued, and reading from the client pauses when the queue is full. Every session ends in `end` or `on_closed`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from enum import Enum
from typing import Any, Final

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    CONNECTION_CLOSED,
    CONNECTION_DENIED,
    CONNECTION_EXPIRED,
    CONNECTION_TOO_MANY_REQUESTS,
    EXPIRED,
    INAPPROPRIATE_PROTOCOL,
    INSUFFICIENT_STATE,
    INTERNAL,
    SERVER_ERROR,
    SLOW,
    TOKEN_EXPIRED,
    UNSUBSCRIBED_BY_CLIENT,
    UNSUBSCRIBED_INSUFFICIENT,
    CommandError,
    Disconnect,
    DisconnectCode,
    PayloadError,
    UnsubscribeCode,
)
from beaconfire.base.loop import SLICE_S
from beaconfire.base.rates import RateMeter
from beaconfire.base.tasks import run_eagerly
from beaconfire.delivery.outbox import Outbox
from beaconfire.delivery.subscription import Subscription
from beaconfire.model.events import ConnectionOpened, LimitHit, SessionEnded, report_error
from beaconfire.model.identity import Identity
from beaconfire.model.publication import NO_PAYLOAD, ClientInfo
from beaconfire.model.pushes import Push, UnsubscribePush
from beaconfire.model.requests import Command, Pong
from beaconfire.model.results import Result
from beaconfire.protocols.port import Payload, ProtocolError, Wire
from beaconfire.session.context import SessionContext
from beaconfire.session.keepalive import Keepalive
from beaconfire.transports.port import Transport
from beaconfire.transports.traits import SessionTraits

_DISCONNECT_FOR_ERROR: Final = {
    EXPIRED: CONNECTION_EXPIRED,
    TOKEN_EXPIRED: CONNECTION_EXPIRED,
    INTERNAL: SERVER_ERROR,
}
"""The disconnect code of a unidirectional session for an error. Any other error means `CONNECTION_DENIED`."""


class SessionPhase(Enum):
    """`REFUSED` is a session whose connect failed: its client can only disconnect."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    REFUSED = "refused"
    ENDED = "ended"


class Session:
    """State of one client. Implements `transports.port.Receiver` and `delivery.subscription.Subscriber`."""

    __slots__ = (
        "__weakref__",
        "_dispatch",
        "_queue",
        "_rates",
        "_running",
        "_upkeep",
        "_writable",
        "app_name",
        "app_version",
        "client",
        "connected_at_unix_s",
        "context",
        "identity",
        "is_reading_paused",
        "keepalive",
        "outbox",
        "phase",
        "position_check_s",
        "recoveries",
        "subscriptions",
        "traits",
        "transport",
        "wire",
    )

    def __init__(
        self,
        context: SessionContext[Session],
        client: str,
        transport: Transport,
        wire: Wire,
        traits: SessionTraits,
        dispatch: Callable[[Session, Command], Coroutine[Any, Any, None]],
        upkeep: Callable[[Session], Coroutine[Any, Any, None]],
    ) -> None:
        """`client` is the client id. `dispatch` runs one command.

        The keepalive calls `upkeep`, which refreshes presence, compares positions and ends expired subscriptions.
        """
        self.context = context
        self.client = client
        self.transport = transport
        self.wire = wire
        self.traits = traits
        self._dispatch = dispatch
        self._upkeep = upkeep
        self.phase = SessionPhase.NEW
        self.identity = Identity()
        self.app_name = ""
        self.app_version = ""
        self.connected_at_unix_s = context.clock.unix_s()
        self.position_check_s = 0.0
        """The monotonic time of the next comparison of positions with their streams."""
        self.subscriptions: dict[str, Subscription] = {}
        self.outbox = Outbox(transport, context.flusher, int(context.options.queue_max_size), self._on_slow)
        self._rates = RateMeter()
        self._running: asyncio.Task[None] | None = None
        self._queue: deque[Command] | None = None
        """Commands that wait for the running command or for the next turn of the event loop. None if there are none."""
        self.is_reading_paused = False
        """True while the command queue is full. The client's pongs are not read either."""
        self._writable: asyncio.Future[None] | None = None
        self.recoveries: dict[str, Subscription] | None = None
        """Subscriptions whose recovery continues after their reply, by channel, in the order of their next pieces. None
        if there are none. See `operations.recover_in_pieces`."""
        context.registry.open.add(self)
        answers_pings = not (traits.app_pings and traits.unidirectional)
        self.keepalive = Keepalive(self, may_stay_stale=traits.lobby is not None, answers_pings=answers_pings)
        context.events.emit(ConnectionOpened(transport.name, wire.codec.name, client))

    @property
    def user(self) -> str:
        return self.identity.user

    def has_ended(self) -> bool:
        return self.phase is SessionPhase.ENDED

    @property
    def waiting_bytes(self) -> int:
        """Bytes for the client that the kernel has not taken yet."""
        return self.outbox.queued_bytes + self.transport.buffered_bytes

    def info(self, channel: str) -> ClientInfo:
        """What presence, joins and publications in a channel show of this client now. A refresh may change it."""
        subscription = self.subscriptions.get(channel)
        chan_info = subscription.grant.info if subscription is not None else NO_PAYLOAD
        return ClientInfo(self.user, self.client, self.identity.info, chan_info)

    def update_info(self) -> None:
        """Shows other clients what the identity says after a refresh.

        Presence is updated at once, and later messages carry the new info. No join or leave is announced.
        """
        for subscription in self.subscriptions.values():
            info = self.info(subscription.channel)
            if info != subscription.info:
                subscription.info = info
                self.context.background.start(self.context.memberships.update_presence(subscription))

    # From the transport

    def on_data(self, data: bytes, binary: bool) -> None:
        """Runs or queues the commands of one message from the client."""
        if self.has_ended():
            return
        if self.traits.unidirectional and self.phase is not SessionPhase.NEW:
            self._count(1, len(data))
            return
        try:
            commands = self.wire.codec.decode(data, binary)
        except ProtocolError as error:
            self.end(BAD_PROTOCOL, str(error))
            return
        self._count(len(commands), len(data))
        if self.has_ended():
            return
        waiting = self._running is not None or self._queue is not None
        if len(commands) == 1 and not waiting:
            self._run(commands[0])
            return
        for command in commands:
            if isinstance(command.request, Pong):
                self._run_pong(command)
                if self.has_ended():
                    return
            else:
                self._enqueue(command)
        if not waiting:
            self._run_queued()
        self._pause_reading_if_full()

    def on_control_frame(self, size: int) -> None:
        """Counts pings and pongs of the transport against the message rate."""
        if not self.has_ended():
            self._count(1, size)

    def _count(self, messages: int, size: int) -> None:
        context, rates = self.context, self._rates
        context.messages_in_total += messages
        context.bytes_in_total += size
        rates.add(context.clock.now_s(), messages, size)
        limit = rates.exceeded(context.options.message_rate_limit, int(context.options.byte_rate_limit))
        if limit:
            context.events.emit(LimitHit(limit, self.client))
            self.end(CONNECTION_TOO_MANY_REQUESTS, f"{limit} exceeded: send less per second")

    def _run(self, command: Command) -> None:
        self._running = run_eagerly(self._dispatch(self, command))
        if self._running is not None:
            self._running.add_done_callback(self._on_command_done)

    def _run_pong(self, command: Command) -> None:
        """Runs a pong before queued commands, because a pong answers a ping however busy the server is."""
        task = run_eagerly(self._dispatch(self, command))
        assert task is None, "a pong never suspends"

    def _enqueue(self, command: Command) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append(command)

    def _run_queued(self) -> None:
        """Runs queued commands for one slice. The rest waits for the next turn of the event loop.

        A frame may hold a thousand commands, and other clients must not wait for all of them.
        """
        now_s = self.context.clock.now_s
        until_s = now_s() + SLICE_S
        while self._queue and not self._is_running():
            if now_s() > until_s:
                self.context.schedule(self._continue_queue)
                break
            self._run(self._queue.popleft())
        if self._queue is not None and not self._queue:  # the end of the session removes the queue
            self._queue = None
            if self.is_reading_paused:
                self.is_reading_paused = False
                self.transport.resume_reading()

    def _continue_queue(self) -> None:
        if not self._is_running():
            self._run_queued()

    def _pause_reading_if_full(self) -> None:
        limit = self.context.options.command_queue_max
        if not self.is_reading_paused and self._queue is not None and len(self._queue) >= limit:
            self.is_reading_paused = True
            self.context.events.emit(LimitHit("client.command_queue_max", self.client))
            self.transport.pause_reading()

    def _on_command_done(self, task: asyncio.Task[None]) -> None:
        self._running = None
        if not task.cancelled() and (error := task.exception()) is not None:
            report_error(self.context.events, "command", error)
        self._run_queued()

    def _is_running(self) -> bool:
        return self._running is not None

    def on_transport_pong(self) -> None:
        self.keepalive.pong(solicited_only=False)

    def on_writable(self) -> None:
        self.outbox.flush()
        self._wake_writer()
        conflated = [subscription for subscription in self.subscriptions.values() if subscription.strategy.is_conflated]
        for subscription in conflated:
            self.context.hub.resume(subscription)
        if conflated:
            self.outbox.flush()  # `positions` counts a delivered publication as sent, and this may be the last write

    async def wait_until_writable(self) -> None:
        """Returns when everything queued is written and the connection takes more, or when the session has ended.

        Only one caller may wait at a time. The transport's write timeout is the deadline.
        """
        self.outbox.flush()
        while self.outbox.is_behind:
            self._writable = asyncio.get_running_loop().create_future()
            await self._writable

    def _wake_writer(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        self._finish(code, "")
        self.context.registry.closing.discard(self)

    def positions(self) -> Mapping[str, tuple[int, str]] | None:
        if self.has_ended():
            return None
        return {
            channel: position
            for channel, subscription in self.subscriptions.items()
            if subscription.options.recoverable and (position := subscription.position) is not None
        }

    # To the client

    def reply(self, ref: object, result: Result) -> None:
        """Answers the command with this ref. Raises PayloadError."""
        self._send(self.wire.codec.encode_reply(ref, result))

    def reply_error(self, ref: object, error: CommandError) -> None:
        """Answers the command with an error. A unidirectional session has no replies and is disconnected instead."""
        if self.traits.unidirectional:
            self.end(_DISCONNECT_FOR_ERROR.get(error.code, CONNECTION_DENIED), error.detail)
            return
        detail = error.detail if self.context.options.debug_reasons else ""
        self._send(self.wire.codec.encode_error(ref, error, detail))

    def push(self, push: Push) -> None:
        """Sends a push. A payload that the client's encoding cannot express ends the session."""
        try:
            self._send(self.wire.codec.encode_push(push))
        except PayloadError as error:
            self.end(INAPPROPRIATE_PROTOCOL, str(error))

    def _send(self, payload: Payload) -> None:
        self.context.replies_total += 1
        self.outbox.append(self.wire.pack([payload]))

    def ping(self) -> None:
        if self.traits.app_pings:
            self._send(self.wire.codec.encode_ping())
        else:
            self.transport.ping()

    # From the hub

    def on_gap(self, subscription: Subscription, reason: str) -> None:
        """Makes the client recover: it subscribes again, or connects again if the subscription is server-side."""
        if self.subscriptions.get(subscription.channel) is not subscription:
            return
        if subscription.is_catching_up:
            subscription.mark_gap()
        elif subscription.options.server_side:
            self.end(INSUFFICIENT_STATE, reason)
        else:
            self.unsubscribe_with_push(subscription, UNSUBSCRIBED_INSUFFICIENT)

    def on_undeliverable(self, subscription: Subscription) -> None:
        self.end(INAPPROPRIATE_PROTOCOL, f"a publication in {subscription.channel!r} is not JSON")

    def _on_slow(self) -> None:
        self.context.events.emit(LimitHit("client.queue_max_size", self.client))
        self.end(SLOW)

    # Subscriptions and the end

    def unsubscribe(self, subscription: Subscription, code: UnsubscribeCode = UNSUBSCRIBED_BY_CLIENT) -> None:
        """Ends a subscription. Nothing of its channel is sent afterwards. Idempotent."""
        if self.subscriptions.get(subscription.channel) is subscription:
            del self.subscriptions[subscription.channel]
        # A client that subscribes and unsubscribes in a loop would leave any number of recoveries behind otherwise.
        if self.recoveries is not None and self.recoveries.get(subscription.channel) is subscription:
            del self.recoveries[subscription.channel]
        self.context.memberships.remove(subscription, code.code)

    def unsubscribe_with_push(self, subscription: Subscription, code: UnsubscribeCode) -> None:
        """Ends a subscription and sends an unsubscribe push."""
        self.unsubscribe(subscription, code)
        self.push(UnsubscribePush(subscription.channel, code.code, code.reason))

    def start_upkeep(self) -> None:
        self.context.background.start(self._upkeep(self))

    def end(self, code: DisconnectCode, detail: str = "") -> None:
        """Sends what is queued, tells the client code and reason, and releases everything. Idempotent.

        `detail` reaches the client only with `client.debug_reasons`.
        """
        if self.has_ended():
            return
        reason = f"{code.reason}: {detail}" if detail and self.context.options.debug_reasons else code.reason
        self.context.registry.closing.add(self)
        self._finish(code, detail)
        self.transport.close(code, reason)

    def end_with(self, disconnect: Disconnect) -> None:
        self.end(disconnect.code, disconnect.detail)

    def _finish(self, code: DisconnectCode, detail: str) -> None:
        if self.has_ended():
            return
        self.phase = SessionPhase.ENDED
        context = self.context
        self.keepalive.cancel()
        context.registry.remove(self)
        context.registry.open.discard(self)
        for subscription in list(self.subscriptions.values()):
            self.unsubscribe(subscription)
        self.outbox.close()
        self._wake_writer()
        self._queue = None
        context.events.emit(
            SessionEnded(
                client=self.client,
                user=self.user,
                transport=self.transport.name,
                protocol=self.wire.codec.name,
                code=code.code,
                reason=code.reason,
                detail=detail,
                duration_s=context.clock.unix_s() - self.connected_at_unix_s,
            )
        )
