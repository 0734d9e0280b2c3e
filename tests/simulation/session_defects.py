"""Defects of sessions, decisions and control messages that the simulation must find. See `recovery_defects`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from msgspec import Raw

from beaconfire.base.deadlines import Deadline
from beaconfire.base.errors import CommandError
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.channels.attachments import Attachments
from beaconfire.channels.lanes import Lane, Lanes, PresenceChange
from beaconfire.delivery.outbox import Outbox
from beaconfire.model.publication import ClientInfo
from beaconfire.node.broker_listener import BrokerListener
from beaconfire.node.cluster import Cluster, ControlMessage, SubscribeSessions, UnsubscribeSessions
from beaconfire.node.local_sessions import LocalSessions
from beaconfire.policy.port import PublicationAttempt
from beaconfire.protocols.centrifuge.connection import CentrifugeConnection
from beaconfire.protocols.port import CommandOrder
from beaconfire.session.command_queue import CommandQueue
from beaconfire.session.membership import Memberships
from beaconfire.session.operations import prepare
from beaconfire.session.operations.connect import Connecting
from beaconfire.session.operations.decisions import Decisions
from beaconfire.session.operations.prepare import Preparation
from beaconfire.session.session import Session
from tests.simulation.broker import Announcement, LossyBroker, StreamStore
from tests.simulation.disabled_checks import ignore_positions

# Presence and attachments


def _older_removal_hides_a_new_entry(patch: pytest.MonkeyPatch) -> None:
    """A client that unsubscribes and subscribes again is removed from presence by its unsubscribe."""
    put = Lane.put

    def keep_removal(self: Lane, client: str, change: PresenceChange) -> None:
        older = self.changes.get(client)
        if older is not None and older.info is None:
            change.finish()
        else:
            put(self, client, change)

    patch.setattr(Lane, "put", keep_removal)


def _failed_removal_is_repeated_after_a_new_entry(patch: pytest.MonkeyPatch) -> None:
    """The repetition of a failed removal removes the entry of a client that has come back."""

    def put(self: Lane, client: str, change: PresenceChange) -> None:
        self.changes[client] = change

    def unblock(self: Lane) -> None:
        self.changes.update(self.failed)
        self.failed.clear()
        self.is_blocked = False

    patch.setattr(Lane, "put", put)
    patch.setattr(Lane, "unblock", unblock)


def _failed_detach_is_not_repeated(patch: pytest.MonkeyPatch) -> None:
    """A channel whose detach has failed stays attached for ever."""
    detach_unneeded = Attachments._detach_unneeded

    def once(self: Attachments, channels: Any, failures: int) -> None:
        if not failures:
            detach_unneeded(self, channels, failures)

    patch.setattr(Attachments, "_detach_unneeded", once)


def _channel_counts_as_attached_after_a_failed_detach(patch: pytest.MonkeyPatch) -> None:
    """The detach may have taken effect, but the next subscriber does not attach."""
    detach = Attachments._detach

    async def keep(self: Attachments, channels: Any, failures: int) -> None:
        await detach(self, channels, failures)
        self._attached.update(channel for channel in channels if channel in self._unsure)

    patch.setattr(Attachments, "_detach", keep)
    ignore_positions(patch)


def _failed_attach_is_ignored(patch: pytest.MonkeyPatch) -> None:
    """A subscription goes live although its channel could not be attached."""
    attach = Memberships.attach

    async def attach_or_not(self: Memberships, channel: str) -> None:
        with suppress(CommandError):
            await attach(self, channel)

    patch.setattr(Memberships, "attach", attach_or_not)
    ignore_positions(patch)


# Two nodes


def _publications_of_another_node_are_dropped(patch: pytest.MonkeyPatch) -> None:
    """Only the node that has published announces a publication to its subscribers."""

    def announce(
        self: StreamStore, origin: LossyBroker, channel: str, announcement: Announcement, is_member: bool = False
    ) -> None:
        for each in self.brokers:
            if is_member or each is origin:
                each.queue(channel, announcement, is_member)

    patch.setattr(StreamStore, "announce", announce)
    ignore_positions(patch)


def _joins_of_another_node_are_dropped(patch: pytest.MonkeyPatch) -> None:
    """Subscribers learn only of the joins of their own node."""
    on_join = BrokerListener.on_join

    def on_local_join(self: BrokerListener, channel: str, info: ClientInfo) -> None:
        if self._hub.find(channel, info.client) is not None:
            on_join(self, channel, info)

    patch.setattr(BrokerListener, "on_join", on_local_join)


def _leaves_of_another_node_are_dropped(patch: pytest.MonkeyPatch) -> None:
    """Only the node of the client learns of its leave."""

    def announce(
        self: StreamStore, origin: LossyBroker, channel: str, announcement: Announcement, is_member: bool = False
    ) -> None:
        is_leave = is_member and "leave" in announcement.__code__.co_names[0]
        for each in self.brokers:
            if not is_leave or each is origin:
                each.queue(channel, announcement, is_member)

    patch.setattr(StreamStore, "announce", announce)


def _control_messages_stay_on_their_node(patch: pytest.MonkeyPatch) -> None:
    """A control message is applied only to the sessions of the node that sends it."""

    async def send(self: Cluster, message: ControlMessage) -> None:
        self._local.apply(message)

    patch.setattr(Cluster, "send", send)


def _control_message_reaches_a_session_that_is_connecting(patch: pytest.MonkeyPatch) -> None:
    """A session is subscribed or unsubscribed before the reply to its connect."""
    apply = LocalSessions.apply

    def apply_at_once(self: LocalSessions, message: ControlMessage) -> None:
        if isinstance(message, SubscribeSessions | UnsubscribeSessions):
            for session in self._select(message.who):
                if isinstance(message, SubscribeSessions):
                    self._requested.start(session, message)
                else:
                    self._unsubscribe(session, message.channel)
        else:
            apply(self, message)

    patch.setattr(LocalSessions, "apply", apply_at_once)


# Decisions


def _decision_goes_on_after_its_session(patch: pytest.MonkeyPatch) -> None:
    """The end of a session does not cancel its decisions."""
    patch.setattr(Session, "begin_deciding", lambda self, task: None)
    patch.setattr(Session, "end_deciding", lambda self, task: None)


def _cancelled_decision_goes_on(patch: pytest.MonkeyPatch) -> None:
    """The command is cancelled, but the handler of its decision is not."""
    ask = Decisions._ask

    async def ask_shielded(self: Decisions, session: Any, decision: str, asked: Any) -> Any:
        async def wait() -> Any:
            return await asyncio.shield(asyncio.ensure_future(asked))

        return await ask(self, session, decision, wait())

    patch.setattr(Decisions, "_ask", ask_shielded)


def _decision_has_no_deadline(patch: pytest.MonkeyPatch) -> None:
    """A handler that never answers holds up its session for ever."""
    patch.setattr(Deadline, "expire", lambda self: None)


def _refused_publication_is_published(patch: pytest.MonkeyPatch) -> None:
    """The refusal of a handler does not count."""
    publish = Decisions.publish

    async def publish_anyway(self: Decisions, session: Any, attempt: PublicationAttempt) -> Raw:
        with suppress(CommandError):
            return await publish(self, session, attempt)
        return attempt.data

    patch.setattr(Decisions, "publish", publish_anyway)


# Commands and sessions


def _session_is_not_checked_after_a_wait(patch: pytest.MonkeyPatch) -> None:
    """A session that has ended while it subscribed gets a subscription, which never ends."""
    patch.setattr(prepare, "_check_open", lambda session: None)


def _subscription_is_not_checked_after_a_decision(patch: pytest.MonkeyPatch) -> None:
    """The client and the server API subscribe a session at the same time. Both subscriptions are made."""
    patch.setattr(Preparation, "_check_not_subscribed", lambda self, session, channel: None)


def _refused_connect_keeps_its_subscriptions(patch: pytest.MonkeyPatch) -> None:
    """The subscriptions that were made before a connect has failed stay."""
    undo = Connecting._undo
    patch.setattr(Connecting, "_undo", lambda self, session, prepared: undo(self, session, []))


def _command_answers_after_its_session(patch: pytest.MonkeyPatch) -> None:
    """The replies of commands that end after their session are sent."""
    patch.setattr(Outbox, "close", Outbox.flush)


def _commands_do_not_wait_for_each_other(patch: pytest.MonkeyPatch) -> None:
    """Every command runs beside those before it, as only an rpc may."""
    patch.setattr(CentrifugeConnection, "order", lambda self, command: CommandOrder.BESIDE)


def _queue_drops_commands_that_wait(patch: pytest.MonkeyPatch) -> None:
    """Commands that come while another one runs get no answer."""
    add = CommandQueue.add

    def add_unless_busy(self: CommandQueue, commands: Any) -> None:
        if self._running is None:
            add(self, commands)

    patch.setattr(CommandQueue, "add", add_unless_busy)


# The stop of a node


def _node_does_not_wait_for_its_work(patch: pytest.MonkeyPatch) -> None:
    """A node stops before it has removed its clients from presence."""

    async def return_at_once(self: Any) -> None:
        pass

    patch.setattr(Lanes, "wait_until_empty", return_at_once)
    patch.setattr(BackgroundTasks, "wait_idle", return_at_once)


DEFECTS: tuple[Callable[[pytest.MonkeyPatch], None], ...] = (
    _older_removal_hides_a_new_entry,
    _failed_removal_is_repeated_after_a_new_entry,
    _failed_detach_is_not_repeated,
    _channel_counts_as_attached_after_a_failed_detach,
    _failed_attach_is_ignored,
    _publications_of_another_node_are_dropped,
    _joins_of_another_node_are_dropped,
    _leaves_of_another_node_are_dropped,
    _control_messages_stay_on_their_node,
    _control_message_reaches_a_session_that_is_connecting,
    _decision_goes_on_after_its_session,
    _cancelled_decision_goes_on,
    _decision_has_no_deadline,
    _refused_publication_is_published,
    _session_is_not_checked_after_a_wait,
    _subscription_is_not_checked_after_a_decision,
    _refused_connect_keeps_its_subscriptions,
    _command_answers_after_its_session,
    _commands_do_not_wait_for_each_other,
    _queue_drops_commands_that_wait,
    _node_does_not_wait_for_its_work,
)
