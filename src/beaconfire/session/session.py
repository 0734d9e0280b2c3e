"""One client's session: identity, subscriptions, and its end.

This module holds the state. `operations` holds what happens at the request of a client, and the protocol connection
translates between the client's messages and the operations. A session lives on the event loop's thread. Usually it
ends together with its transport; with `SessionTraits.resume_s` it may move to another one. Every session ends in `end`
or `on_closed`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

from beaconfire.base.errors import (
    CONNECTION_CLOSED,
    CONNECTION_TOO_MANY_REQUESTS,
    INAPPROPRIATE_PROTOCOL,
    INSUFFICIENT_STATE,
    SLOW,
    UNSUBSCRIBED_BY_CLIENT,
    UNSUBSCRIBED_INSUFFICIENT,
    Disconnect,
    DisconnectCode,
    PayloadError,
    UnsubscribeCode,
)
from beaconfire.base.rates import RateMeter
from beaconfire.base.tasks import run_in_one_step
from beaconfire.delivery.outbox import Outbox
from beaconfire.delivery.subscription import Subscription, SubscriptionPhase
from beaconfire.model.events import ConnectionOpened, LimitHit, SessionEnded
from beaconfire.model.handshake import Handshake
from beaconfire.model.identity import Identity
from beaconfire.model.publication import NO_PAYLOAD, ClientInfo
from beaconfire.model.pushes import Push, UnsubscribePush
from beaconfire.policy.port import EndedSession, EndedSubscription
from beaconfire.protocols.port import CommandOrder, Frame, Payload, ProtocolConnection, Wire
from beaconfire.session.command_queue import CommandQueue
from beaconfire.session.context import SessionContext
from beaconfire.session.keepalive import Keepalive
from beaconfire.session.transport_link import NO_TRANSPORT
from beaconfire.transports.port import Transport
from beaconfire.transports.traits import Pings, SessionTraits


class SessionPhase(Enum):
    """`REFUSED` is a session whose connect failed: its client can only disconnect."""

    NEW = "new"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    REFUSED = "refused"
    ENDED = "ended"


class _EndedProtocol:
    """The protocol connection of an ended session, which is never called."""

    def receive(self, data: bytes, binary: bool) -> None:
        raise AssertionError("the session has ended")

    async def execute(self, command: object) -> None:
        raise AssertionError("the session has ended")

    def never_suspends(self, command: object) -> bool:
        raise AssertionError("the session has ended")

    def order(self, command: object) -> CommandOrder:
        raise AssertionError("the session has ended")

    def ping(self) -> None:
        raise AssertionError("the session has ended")

    def on_ended(self, code: DisconnectCode) -> None:
        """The session has ended while its protocol connection was made."""


ENDED: Final = _EndedProtocol()


class Session:
    """State of one client. Implements `transports.port.Receiver` and `delivery.subscription.Subscriber`."""

    __slots__ = (
        "__weakref__",
        "_deciding",
        "_queue",
        "_rates",
        "_upkeep",
        "_writable",
        "app_name",
        "app_version",
        "client",
        "connected_at_unix_s",
        "context",
        "handshake",
        "identity",
        "keepalive",
        "outbox",
        "phase",
        "protocol",
        "recoveries",
        "subscriptions",
        "traits",
        "transport",
        "wants_tickets",
        "wire",
    )

    def __init__(
        self,
        context: SessionContext[Session],
        client: str,
        transport: Transport,
        wire: Wire,
        handshake: Handshake,
        traits: SessionTraits,
        make_protocol: Callable[[Session], ProtocolConnection],
        upkeep: Callable[[Session], None],
    ) -> None:
        """`client` is the client id. `make_protocol` makes the protocol connection.

        The keepalive calls `upkeep`, which ends expired subscriptions.
        """
        self.context = context
        self.client = client
        self.transport = transport
        self.wire = wire
        self.handshake: Handshake | None = handshake
        """None once the session has connected, failed to connect or ended, to save memory in idle connections."""
        self.traits = traits
        self._upkeep = upkeep
        self.phase = SessionPhase.NEW
        self.wants_tickets = False
        self.identity = Identity()
        self.app_name = ""
        self.app_version = ""
        self.connected_at_unix_s = context.clock.unix_s()
        self.subscriptions: dict[str, Subscription] = {}
        self.outbox = Outbox(transport, context.flusher, int(context.options.queue_max_size), self._on_slow)
        self._rates = RateMeter()
        self._queue: CommandQueue | None = None
        """The commands that run or wait. None if there are none."""
        self._deciding: dict[asyncio.Task[Any], None] | None = None
        """Tasks that wait for a decision of a policy, in the order in which they began. None if there are none."""
        self._writable: asyncio.Future[None] | None = None
        self.recoveries: dict[str, Subscription] | None = None
        """Subscriptions whose recovery continues after their reply, by channel, in the order of their next pieces. None
        if there are none. See `operations.recover_in_pieces`."""
        context.registry.open.add(self)
        self.keepalive = Keepalive(self, traits)
        context.events.emit(ConnectionOpened(transport.name, wire.codec.name, client))
        self.protocol: ProtocolConnection = ENDED
        protocol = make_protocol(self)
        if not self.has_ended():
            self.protocol = protocol

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
                self.context.memberships.update_presence(subscription)

    # From the transport

    def on_data(self, data: bytes, binary: bool) -> None:
        """Passes one message of the client to the protocol."""
        if self.phase is not SessionPhase.ENDED:
            self.protocol.receive(data, binary)

    def on_control_frame(self, size: int) -> None:
        """Counts pings and pongs of the transport against the message rate."""
        if not self.has_ended():
            self.count(1, size)

    # From the protocol

    def count(self, messages: int, size: int) -> None:
        """Counts messages of the client with `size` bytes together. Ends the session if it sends too much."""
        context, rates = self.context, self._rates
        context.messages_in_total += messages
        context.bytes_in_total += size
        rates.add(context.clock.now_s(), messages, size)
        limit = rates.exceeded(context.options.message_rate_limit, int(context.options.byte_rate_limit))
        if limit:
            context.events.emit(LimitHit(limit, self.client))
            self.end(CONNECTION_TOO_MANY_REQUESTS, f"{limit} exceeded: send less per second")

    def run_commands(self, commands: Sequence[object]) -> None:
        """Runs commands after those that run or wait already, each with `ProtocolConnection.execute`."""
        if self._queue is None:
            if len(commands) == 1 and self.protocol.never_suspends(commands[0]):
                run_in_one_step(self.protocol.execute(commands[0]))
                return
            self._queue = CommandQueue(self)
        self._queue.add(commands)

    def begin_deciding(self, task: asyncio.Task[Any]) -> None:
        """The task waits for a decision of a policy. The end of the session cancels the task."""
        if self._deciding is None:
            self._deciding = {}
        self._deciding[task] = None

    def end_deciding(self, task: asyncio.Task[Any]) -> None:
        assert self._deciding is not None, "the task waits for a decision"
        del self._deciding[task]
        if not self._deciding:
            self._deciding = None

    def drop_queue(self) -> None:
        """Called by the queue when it is empty."""
        self._queue = None

    @property
    def is_reading_paused(self) -> bool:
        """True while the command queue is full. The client's pongs are not read either."""
        return self._queue is not None and self._queue.is_reading_paused

    # From the transport

    def on_transport_pong(self) -> None:
        self.keepalive.pong()

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
        if self.traits.resume_s and self.phase is SessionPhase.CONNECTED:
            self._replace_transport(NO_TRANSPORT)
            self.keepalive.transport_lost(self.traits.resume_s)
            return
        self._finish(code, "")
        self.context.registry.closing.discard(self)

    def on_transport_not_replaced(self) -> None:
        self._finish(CONNECTION_CLOSED, "the client did not come back in time")

    def move_to(self, transport: Transport, wire: Wire, frames: Sequence[Frame] = ()) -> None:
        """Replaces the transport of a connected session, for example after the loss of the one before.

        `wire` has the same codec as the wire before. `frames` of this wire are sent before everything else. What the
        old transport does not take at once is lost, so a protocol whose sessions move sends here once more what its
        client has not acknowledged. The old transport is closed. Its calls must not reach this session any more: see
        `TransportLink`.
        """
        self.outbox.flush()
        old, self.wire = self.transport, wire
        self._replace_transport(transport)
        for subscription in self.subscriptions.values():
            subscription.wire = wire
        for frame in frames:
            self.outbox.append(frame)
        self.keepalive.transport_replaced()
        if self.is_reading_paused:
            transport.pause_reading()
        if transport.writable:
            self.on_writable()  # the session may have waited for the old transport to be writable
        old.close(CONNECTION_CLOSED, "")

    def _replace_transport(self, transport: Transport) -> None:
        old, self.transport = self.transport, transport
        self.outbox.move_to(transport)
        self.context.registry.transport_replaced(self, old)

    def positions(self) -> Mapping[str, tuple[int, str]] | None:
        if self.has_ended():
            return None
        return {
            channel: position
            for channel, subscription in self.subscriptions.items()
            if subscription.options.recoverable and (position := subscription.position) is not None
        }

    # To the client

    def send(self, message: Payload) -> None:
        """Sends one message of the protocol."""
        self.context.replies_total += 1
        self.outbox.append(self.wire.pack([message]))

    def count_sent(self, size: int) -> None:
        """Counts a message of `size` bytes that the protocol gives to the client without the outbox."""
        self.context.replies_total += 1
        self.context.flusher.count(1, size)

    def push(self, push: Push) -> None:
        """Sends a push. A payload that the client's encoding cannot express ends the session."""
        try:
            self.send(self.wire.codec.encode_push(push))
        except PayloadError as error:
            self.end(INAPPROPRIATE_PROTOCOL, str(error))

    def ping(self) -> None:
        if self.traits.pings is Pings.TRANSPORT:
            self.transport.ping()
        else:
            self.protocol.ping()

    # From the hub

    def on_gap(self, subscription: Subscription, reason: str) -> None:
        if self.subscriptions.get(subscription.channel) is not subscription:
            return
        if subscription.is_catching_up:
            subscription.mark_gap()
        else:
            self.context.gap_notices.add(self, subscription, reason)

    # From the gap notices

    def tell_gap(self, subscription: Subscription, reason: str) -> None:
        """Makes the client recover: it subscribes again, or connects again if the subscription is server-side."""
        if subscription.options.server_side:
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
        endings = self.context.endings
        if endings is not None and subscription.replied and not subscription.removed:
            endings.unsubscribed(EndedSubscription(self.client, self.identity, subscription.channel, code.code))
        if subscription.phase is SubscriptionPhase.ENDED:
            self.context.gap_notices.discard(subscription)
        self.context.memberships.remove(subscription, code.code)

    def unsubscribe_with_push(self, subscription: Subscription, code: UnsubscribeCode) -> None:
        """Ends a subscription, and sends an unsubscribe push if the client knows that it is subscribed."""
        self.unsubscribe(subscription, code)
        if subscription.replied:
            self.push(UnsubscribePush(subscription.channel, code.code, code.reason))

    def start_upkeep(self) -> None:
        self._upkeep(self)

    def end(self, code: DisconnectCode, detail: str = "") -> None:
        """Sends what is queued, tells the client code and reason, and releases everything. Idempotent.

        `detail` reaches the client only with `client.debug_reasons`.
        """
        if self.has_ended():
            return
        reason = f"{code.reason}: {detail}" if detail and self.context.options.debug_reasons else code.reason
        if self.transport is not NO_TRANSPORT:
            self.context.registry.closing.add(self)  # until the transport calls `on_closed`
        self._finish(code, detail)
        self.transport.close(code, reason)

    def end_with(self, disconnect: Disconnect) -> None:
        self.end(disconnect.code, disconnect.detail)

    def _finish(self, code: DisconnectCode, detail: str) -> None:
        if self.has_ended():
            return
        was_connected = self.phase is SessionPhase.CONNECTED
        self.phase = SessionPhase.ENDED
        self.handshake = None
        context = self.context
        self.keepalive.cancel()
        context.registry.remove(self)
        context.registry.open.discard(self)
        context.registry.chosen_ids.discard(self.client)
        for subscription in list(self.subscriptions.values()):
            self.unsubscribe(subscription)
        protocol, self.protocol = self.protocol, ENDED  # breaks the reference cycle
        protocol.on_ended(code)
        self.outbox.close()
        self._wake_writer()
        if self._queue is not None:
            self._queue.close()
            self._queue = None
        for task in self._deciding or ():
            task.cancel()
        if context.endings is not None and was_connected:
            context.endings.disconnected(EndedSession(self.client, self.identity, code.code, code.reason))
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
