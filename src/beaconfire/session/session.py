"""One client's logical connection: who it is, what it is subscribed to, and how it ends.

This is state; what happens when a client asks for something is in `commands`. A session lives on the event loop's
thread. Commands are handled one after the other: while one waits for an engine, the next are queued, and if too many
are, reading from the client pauses. `end` is the only way out, whoever wants it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from enum import Enum
from typing import Any, Final

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    BAD_REQUEST,
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
from beaconfire.base.rates import RateMeter
from beaconfire.base.tasks import run_eagerly
from beaconfire.channels.namespaces import Namespace
from beaconfire.delivery.outbox import SLICE_S, Outbox
from beaconfire.delivery.subscription import Subscription
from beaconfire.model.events import ConnectionOpened, LimitHit, SessionEnded
from beaconfire.model.identity import Identity
from beaconfire.model.publication import NO_PAYLOAD, ClientInfo
from beaconfire.model.pushes import Push, UnsubscribePush
from beaconfire.model.requests import Command, Pong
from beaconfire.model.results import Result
from beaconfire.node.node import Node
from beaconfire.protocols.port import Payload, ProtocolError, Wire
from beaconfire.session.keepalive import Keepalive
from beaconfire.session.traits import SessionTraits
from beaconfire.transports.port import Transport

_END_OF_LISTENER: Final = {
    EXPIRED: CONNECTION_EXPIRED,
    TOKEN_EXPIRED: CONNECTION_EXPIRED,
    INTERNAL: SERVER_ERROR,
}
"""The code for an error where there are no replies; with any other error a listener is denied for good."""


class SessionPhase(Enum):
    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    REFUSED = "refused"
    ENDED = "ended"


class Session:
    """State of one client. Implements `transports.base.Receiver` and `subscription.Subscriber`."""

    __slots__ = (
        "__weakref__",
        "_busy",
        "_dispatch",
        "_held_back",
        "_meter",
        "_queue",
        "_writable",
        "app_name",
        "app_version",
        "client",
        "connected_at_unix_s",
        "identity",
        "keepalive",
        "node",
        "outbox",
        "phase",
        "position_check_s",
        "recoveries",
        "subscriptions",
        "traits",
        "transport",
        "upkeep",
        "wire",
    )

    def __init__(
        self,
        node: Node,
        client: str,
        transport: Transport,
        wire: Wire,
        traits: SessionTraits,
        dispatch: Callable[[Session, Command], Coroutine[Any, Any, None]],
        upkeep: Callable[[Session], Coroutine[Any, Any, None]],
    ) -> None:
        self.node = node
        self.client = client
        self.transport = transport
        self.wire = wire
        self.traits = traits
        self._dispatch = dispatch
        self.upkeep = upkeep
        self.phase = SessionPhase.NEW
        self.identity = Identity()
        self.app_name = ""
        self.app_version = ""
        self.connected_at_unix_s = node.clock.unix_s()
        self.position_check_s = 0.0
        """When positions are compared with their streams next."""
        self.subscriptions: dict[str, Subscription] = {}
        self.outbox = Outbox(transport, node.flusher, int(node.client_options.queue_max_size), self._on_slow)
        self._meter = RateMeter()
        self._busy: asyncio.Task[None] | None = None
        self._queue: deque[Command] | None = None
        """What waits for the command under way, or for the loop's next turn; None if nothing does."""
        self._held_back = False
        self._writable: asyncio.Future[None] | None = None
        self.recoveries: dict[str, Subscription] | None = None
        """Subscriptions whose recovery goes on after their reply, by channel, next one first; None if there are none.
        See `catching_up`."""
        node.connections.add(self)
        answers_pings = not (traits.app_pings and traits.unidirectional)
        self.keepalive = Keepalive(self, may_stay_stale=traits.lobby is not None, answers_pings=answers_pings)
        node.events.emit(ConnectionOpened(transport.name, wire.codec.name, client))

    @property
    def user(self) -> str:
        return self.identity.user

    def has_ended(self) -> bool:
        return self.phase is SessionPhase.ENDED

    @property
    def is_reading_paused(self) -> bool:
        """The client is not read at the moment, so its pongs are not seen either."""
        return self._held_back

    @property
    def waiting_bytes(self) -> int:
        """Bytes on their way to the client that the kernel has not taken yet."""
        return self.outbox.queued_bytes + self.transport.buffered_bytes

    def info(self, channel: str) -> ClientInfo:
        """What others see of this client in a channel now; a refresh may have changed it."""
        subscription = self.subscriptions.get(channel)
        chan_info = subscription.grant.info if subscription is not None else NO_PAYLOAD
        return ClientInfo(self.user, self.client, self.identity.info, chan_info)

    def update_info(self) -> None:
        """After a refresh: others see what the client's token says now. Presence has it at once, other messages from
        now on; nothing is announced."""
        for subscription in self.subscriptions.values():
            info = self.info(subscription.channel)
            if info != subscription.info:
                subscription.info = info
                self.node.background.start(self.node.touch_presence(subscription))

    def check_length(self, channel: str) -> None:
        """Raises CommandError 107 for a name longer than any channel may have."""
        if self.node.namespaces.too_long(channel):
            self.node.events.emit(LimitHit("channel_names.max_length", self.client))
            raise CommandError(BAD_REQUEST, "channel is longer than channel_names.max_length")

    def namespace(self, channel: str) -> Namespace:
        """The namespace of a channel the client names. Raises CommandError 102, or 107 for what is no good name."""
        self.check_length(channel)
        namespace = self.node.namespaces.resolve(channel)
        if channel not in self.subscriptions:  # the server may have put it into one with any name
            self.node.namespaces.check_name(channel, namespace)
        return namespace

    # From the transport

    def on_data(self, data: bytes, binary: bool) -> None:
        """One message from the client: zero or more commands."""
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
        waiting = self._busy is not None or self._queue is not None
        if len(commands) == 1 and not waiting:
            self._run(commands[0])
            return
        for command in commands:
            if isinstance(command.request, Pong):
                self._run_aside(command)
                if self.has_ended():
                    return
            else:
                self._enqueue(command)
        if not waiting:
            self._work()
        self._hold_back()

    def on_control_frame(self, size: int) -> None:
        """Pings and pongs of the transport use up the message rate as well."""
        if not self.has_ended():
            self._count(1, size)

    def _count(self, messages: int, size: int) -> None:
        node, meter = self.node, self._meter
        node.messages_in_total += messages
        node.bytes_in_total += size
        meter.add(node.clock.now_s(), messages, size)
        limit = meter.exceeded(node.client_options.message_rate_limit, int(node.client_options.byte_rate_limit))
        if limit:
            node.events.emit(LimitHit(limit, self.client))
            self.end(CONNECTION_TOO_MANY_REQUESTS, f"{limit} exceeded: send less per second")

    def _run(self, command: Command) -> None:
        self._busy = run_eagerly(self._dispatch(self, command))
        if self._busy is not None:
            self._busy.add_done_callback(self._on_command_done)

    def _run_aside(self, command: Command) -> None:
        """A pong never waits behind other commands: the client has answered, however busy we are."""
        task = run_eagerly(self._dispatch(self, command))
        assert task is None, "a pong needs nothing that could make it wait"

    def _enqueue(self, command: Command) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append(command)

    def _work(self) -> None:
        """Handles queued commands for a few milliseconds; what is left waits for the loop's next turn, unread.

        A frame may hold a thousand commands, and each may be dear: other clients must not wait for all of them.
        """
        now_s = self.node.clock.now_s
        until_s = now_s() + SLICE_S
        while self._queue and not self._is_busy():
            if now_s() > until_s:
                self.node.schedule(self._go_on)
                break
            self._run(self._queue.popleft())
        if self._queue is not None and not self._queue:  # there is none after the end
            self._queue = None
            if self._held_back:
                self._held_back = False
                self.transport.resume_reading()

    def _go_on(self) -> None:
        if not self._is_busy():
            self._work()

    def _hold_back(self) -> None:
        """More commands wait than may: the client is not read until they are done."""
        limit = self.node.client_options.command_queue_max
        if not self._held_back and self._queue is not None and len(self._queue) >= limit:
            self._held_back = True
            self.node.events.emit(LimitHit("client.command_queue_max", self.client))
            self.transport.pause_reading()

    def _on_command_done(self, task: asyncio.Task[None]) -> None:
        self._busy = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self.node.report("command", error)
        self._work()

    def _is_busy(self) -> bool:
        return self._busy is not None

    def on_transport_pong(self) -> None:
        self.keepalive.pong(solicited_only=False)

    def on_writable(self) -> None:
        self.outbox.flush()
        self._wake()
        with_strategy = [
            subscription for subscription in self.subscriptions.values() if subscription.strategy is not None
        ]
        for subscription in with_strategy:
            self.node.hub.pay(subscription)
        if with_strategy:
            self.outbox.flush()  # positions count it as sent: where this is the last write, it would be lost

    async def wait_until_writable(self) -> None:
        """Returns once all that was queued is written and the connection takes more, or the session has ended.

        One caller at a time. The transport's write timeout is the deadline.
        """
        self.outbox.flush()
        while self.outbox.is_behind:
            self._writable = asyncio.get_running_loop().create_future()
            await self._writable

    def _wake(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def on_closed(self, code: DisconnectCode = CONNECTION_CLOSED) -> None:
        self._finish(code, "")
        self.node.leaving.discard(self)

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
        """Where there are no replies, the error is the end of the session."""
        if self.traits.unidirectional:
            self.end(_END_OF_LISTENER.get(error.code, CONNECTION_DENIED), error.detail)
            return
        detail = error.detail if self.node.client_options.debug_reasons else ""
        self._send(self.wire.codec.encode_error(ref, error, detail))

    def push(self, push: Push) -> None:
        """Sends what nobody asked for. A payload this client cannot get ends the session."""
        try:
            self._send(self.wire.codec.encode_push(push))
        except PayloadError as error:
            self.end(INAPPROPRIATE_PROTOCOL, str(error))

    def _send(self, payload: Payload) -> None:
        self.node.replies_total += 1
        self.outbox.append(self.wire.pack([payload]))

    def ping(self) -> None:
        if self.traits.app_pings:
            self._send(self.wire.codec.encode_ping())
        else:
            self.transport.ping()

    # From the hub

    def on_gap(self, subscription: Subscription, reason: str) -> None:
        """The client must come back with its position: to the channel, or altogether if it did not choose it."""
        if self.subscriptions.get(subscription.channel) is not subscription:
            return
        if subscription.is_catching_up:
            subscription.mark_gap()
        elif subscription.options.server_side:
            self.end(INSUFFICIENT_STATE, reason)
        else:
            self.expel(subscription, UNSUBSCRIBED_INSUFFICIENT)

    def on_undeliverable(self, subscription: Subscription) -> None:
        self.end(INAPPROPRIATE_PROTOCOL, f"a publication in {subscription.channel!r} is not JSON")

    def _on_slow(self) -> None:
        self.node.events.emit(LimitHit("client.queue_max_size", self.client))
        self.end(SLOW)

    # Subscriptions and the end

    def leave(self, subscription: Subscription, code: UnsubscribeCode = UNSUBSCRIBED_BY_CLIENT) -> None:
        """Ends a subscription; nothing of its channel is sent after what is sent now. Idempotent."""
        if self.subscriptions.get(subscription.channel) is subscription:
            del self.subscriptions[subscription.channel]
        if self.recoveries is not None and self.recoveries.get(subscription.channel) is subscription:
            del self.recoveries[subscription.channel]  # whoever comes and goes would leave any number of them behind
        self.node.withdraw(subscription, code.code)

    def expel(self, subscription: Subscription, code: UnsubscribeCode) -> None:
        """Ends a subscription and tells the client."""
        self.leave(subscription, code)
        self.push(UnsubscribePush(subscription.channel, code.code, code.reason))

    def start_upkeep(self) -> None:
        self.node.background.start(self.upkeep(self))

    def end(self, code: DisconnectCode, detail: str = "") -> None:
        """Sends what is queued, tells the client code and reason, and lets go of everything. Idempotent."""
        if self.has_ended():
            return
        reason = f"{code.reason}: {detail}" if detail and self.node.client_options.debug_reasons else code.reason
        self.node.leaving.add(self)
        self._finish(code, detail)
        self.transport.close(code, reason)

    def end_with(self, disconnect: Disconnect) -> None:
        self.end(disconnect.code, disconnect.detail)

    def _finish(self, code: DisconnectCode, detail: str) -> None:
        if self.has_ended():
            return
        self.phase = SessionPhase.ENDED
        node = self.node
        self.keepalive.cancel()
        node.registry.remove(self)
        node.connections.discard(self)
        for subscription in list(self.subscriptions.values()):
            self.leave(subscription)
        self.outbox.close()
        self._wake()
        self._queue = None
        node.events.emit(
            SessionEnded(
                client=self.client,
                user=self.user,
                transport=self.transport.name,
                protocol=self.wire.codec.name,
                code=code.code,
                reason=code.reason,
                detail=detail,
                duration_s=node.clock.unix_s() - self.connected_at_unix_s,
            )
        )
