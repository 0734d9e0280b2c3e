"""One running server: the hub joined to the engine, and everything sessions share.

All doors meet here. Whoever publishes (a client, the HTTP API, later a Python call) goes through `publish`; the broker
stores and announces; `on_publication` hands it to the hub. There is no second path.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Raw, Struct

from beaconfire.base.errors import (
    BAD_REQUEST,
    NOT_AVAILABLE,
    UNRECOVERABLE_POSITION,
    CommandError,
)
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timers
from beaconfire.channels.access import Access
from beaconfire.channels.attachments import Attachments
from beaconfire.channels.namespaces import Namespace, Namespaces
from beaconfire.delivery.hub import Hub
from beaconfire.delivery.outbox import SLICE_S, Flusher, SendAll
from beaconfire.delivery.patches import Patches
from beaconfire.delivery.subscription import Subscription
from beaconfire.delivery.tags_filter import TagsFilters
from beaconfire.engines.port import (
    NO_HISTORY,
    Engine,
    HistoryPage,
    PresenceStats,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.model.events import (
    EventSink,
    InternalError,
    NodeStatistics,
    Subscribed,
    Unsubscribed,
)
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.pushes import JoinPush, LeavePush
from beaconfire.policy.port import Policy
from beaconfire.session.options import ClientOptions
from beaconfire.session.registry import SessionRegistry

if TYPE_CHECKING:
    from beaconfire.session.session import Session

PRESENCE_TTL_INTERVALS = 2.2
"""Presence entries live this many refresh intervals: one refresh may be lost without anybody vanishing."""


class NodeOptions(Struct, frozen=True):
    """What tells this node from others, and how long it listens to a channel nobody is in."""

    uid: str
    name: str
    version: str
    detach_delay_s: float = 1.0


class Node:
    """Publish, history, presence and attachment, and the tables of sessions and subscriptions."""

    def __init__(
        self,
        options: NodeOptions,
        client_options: ClientOptions,
        engine: Engine,
        namespaces: Namespaces,
        access: Access,
        policy: Policy,
        timers: Timers,
        events: EventSink,
        schedule: Callable[[Callable[[], None]], object],
        prompt_timers: Timers,
        random: Callable[[], float],
        send_all: SendAll,
    ) -> None:
        """`schedule` runs a callable on the next turn of the event loop; `prompt_timers` are for what must be on time;
        `random` gives numbers in [0, 1)."""
        self.options = options
        self.client_options = client_options
        self.engine = engine
        self.namespaces = namespaces
        self.access = access
        self.policy = policy
        self.timers = timers
        self.clock = timers.clock
        self.events = events
        self.schedule = schedule
        self.random = random
        self.background = BackgroundTasks(self._on_background_error)
        now_s = self.clock.now_s
        self.flusher = Flusher(schedule, now_s, send_all)
        self.patches = Patches()
        self.filters = TagsFilters(client_options.tags_filter_max_nodes, client_options.tags_filter_max_values)
        self.hub = Hub(schedule, prompt_timers, events, int(client_options.queue_max_size), self.flusher, self.patches)
        self.registry: SessionRegistry[Session] = SessionRegistry()
        self.connections: set[Session] = set()
        """Every open session, authenticated or not."""
        self.leaving: set[Session] = set()
        """Sessions that have ended while their transport still says goodbye."""
        self.attachments = Attachments(
            engine.broker, timers, self.background, options.detach_delay_s, self.hub.has_subscribers
        )
        self.started_s = now_s()
        self.messages_in_total = 0
        self.bytes_in_total = 0
        self.replies_total = 0

    async def start(self) -> None:
        await self.engine.broker.start(self)

    async def stop(self) -> None:
        """Lets what sessions left behind finish, then stops the broker."""
        await self.background.wait_idle()
        await self.engine.broker.stop()

    def statistics(self) -> NodeStatistics:
        hub = self.hub.statistics()
        return NodeStatistics(
            connections=len(self.connections),
            sessions=len(self.registry),
            users=self.registry.users,
            channels=hub.channels,
            subscriptions=hub.subscriptions,
            queue_bytes=sum(session.waiting_bytes for session in self.connections),
            messages_in_total=self.messages_in_total,
            bytes_in_total=self.bytes_in_total,
            messages_out_total=hub.delivered_total + self.replies_total,
            bytes_out_total=self.flusher.bytes_total,
            writes_total=self.flusher.writes_total,
            patches_total=hub.patches_total,
            filtered_total=hub.filtered_total,
            conflated_total=hub.conflated_total,
        )

    async def turn(self) -> None:
        """Returns on the next turn of the event loop: others get theirs in between."""
        turned = asyncio.get_running_loop().create_future()
        self.schedule(lambda: turned.set_result(None) if not turned.done() else None)
        await turned

    async def breathe(self, started_s: float) -> float:
        """To be called between the pieces of long work of one client, which began, or went on, at `started_s`.

        Lets others run where the work has taken a slice; returns when it goes on.
        """
        if self.clock.now_s() - started_s < SLICE_S:
            return started_s
        await self.turn()
        return self.clock.now_s()

    # Publishing

    async def publish(
        self,
        channel: str,
        namespace: Namespace,
        data: Raw,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        skip_history: bool = False,
        idempotency_key: str = "",
        version: int = 0,
        version_epoch: str = "",
        exclude: Sequence[str] = (),
        delta: bool = False,
    ) -> PublishOutcome:
        """Stores and announces as one step; returns the position it got. Raises what the broker raises."""
        options = PublishOptions(
            history=NO_HISTORY if skip_history else namespace.history,
            idempotency_key=idempotency_key,
            version=version,
            version_epoch=version_epoch,
            exclude=tuple(exclude),
            delta=delta or namespace.options.delta_publish,
        )
        return await self.engine.broker.publish(channel, data, options, info, tags)

    # Reading

    async def history(
        self,
        channel: str,
        namespace: Namespace,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        """As `Broker.history`. Raises CommandError 108 where the channel keeps none."""
        if not namespace.history.enabled:
            raise CommandError(NOT_AVAILABLE, f"history is off in {channel!r}: set history_size and history_ttl")
        return await self.engine.broker.history(channel, namespace.history, limit, since, reverse)

    async def page(
        self, channel: str, namespace: Namespace, limit: int, since: StreamPosition | None, reverse: bool
    ) -> HistoryPage:
        """A page of history for somebody who asks for one, as `history`.

        Raises CommandError 107 for a reverse page before nothing, 112 if `since` is of another epoch.
        """
        if since is not None and reverse and since.offset == 0:
            raise CommandError(BAD_REQUEST, "since.offset must be above 0 with reverse: nothing is earlier")
        page = await self.history(channel, namespace, limit, since, reverse)
        if since is not None and since.epoch not in ("", page.position.epoch):
            raise CommandError(UNRECOVERABLE_POSITION, "since.epoch is not the stream's: read from the start")
        return page

    async def remove_history(self, channel: str, namespace: Namespace) -> None:
        if not namespace.history.enabled:
            raise CommandError(NOT_AVAILABLE, f"history is off in {channel!r}: set history_size and history_ttl")
        await self.engine.broker.remove_history(channel)

    async def presence(self, channel: str, namespace: Namespace) -> dict[str, ClientInfo]:
        """Client id to info. Raises CommandError 108 where presence is off."""
        self._check_presence(channel, namespace)
        return await self.engine.presence.members(channel)

    async def presence_stats(self, channel: str, namespace: Namespace) -> PresenceStats:
        self._check_presence(channel, namespace)
        return await self.engine.presence.stats(channel)

    def _check_presence(self, channel: str, namespace: Namespace) -> None:
        if not namespace.options.presence:
            raise CommandError(NOT_AVAILABLE, f"presence is off in {channel!r}: set presence")

    # Coming and going

    async def touch_presence(self, subscription: Subscription) -> None:
        """Adds or refreshes the presence of a subscription that is tracked."""
        if subscription.options.presence:
            ttl_s = float(self.client_options.presence_update_interval) * PRESENCE_TTL_INTERVALS
            await self.engine.presence.add(subscription.channel, subscription.info, ttl_s)
            if subscription.removed and self.hub.find(subscription.channel, subscription.client) is None:
                # It left meanwhile, and its entry may have been removed before it was added.
                await self.engine.presence.remove(subscription.channel, subscription.client)

    def welcome(self, subscription: Subscription) -> None:
        """The subscriber's reply is on its way: others may hear that it came, and later that it went."""
        subscription.replied = True
        if subscription.options.announces_join_leave:
            self.background.start(self.engine.broker.publish_join(subscription.channel, subscription.info))
        self.events.emit(Subscribed(subscription.client, subscription.channel, subscription.namespace.name))

    def withdraw(self, subscription: Subscription, code: int) -> None:
        """Takes a subscription out of hub, presence and, after a while, the broker. Idempotent."""
        was_last = self.hub.remove(subscription)
        if subscription.removed:
            return
        subscription.removed = True
        if was_last:
            self.attachments.release(subscription.channel)
        if subscription.options.presence or subscription.options.announces_join_leave:
            self.background.start(self._say_goodbye(subscription))
        if subscription.replied:
            channel, namespace = subscription.channel, subscription.namespace.name
            self.events.emit(Unsubscribed(subscription.client, channel, namespace, code))

    async def _say_goodbye(self, subscription: Subscription) -> None:
        if subscription.options.presence:
            await self.engine.presence.remove(subscription.channel, subscription.client)
        if subscription.options.announces_join_leave and subscription.replied:
            await self.engine.broker.publish_leave(subscription.channel, subscription.info)

    # From the broker

    def on_publication(
        self, channel: str, publication: Publication, epoch: str, exclude: Sequence[str], delta: bool = False
    ) -> None:
        self.hub.publish(channel, publication, epoch, exclude, delta)

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self.hub.announce(JoinPush(channel, info))

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        self.hub.announce(LeavePush(channel, info))

    def on_link_lost(self, channels: Sequence[str] | None) -> None:
        """Positions can't be trusted any more: positioned subscriptions recover, by the only path there is."""
        for channel in [name for name, _ in self.hub.channels()] if channels is None else channels:
            for subscription in self.hub.subscribers(channel):
                if subscription.options.positioned:
                    subscription.owner.on_gap(subscription, "the link to the broker was lost")

    def _on_background_error(self, error: BaseException) -> None:
        self.report("background", error)

    def report(self, where: str, error: BaseException) -> None:
        """Tells the sinks of something that should not happen."""
        self.events.emit(InternalError(where, "".join(traceback.format_exception(error))))
