"""Engines of several nodes in one process, with one store, as if a server stood between the nodes.

Announcements and control messages wait in queues until they are delivered: in order within a channel of one node, and
in random order between channels and nodes. The store is a memory engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from msgspec import Raw

from beaconfire.base.errors import NOT_AVAILABLE, CommandError
from beaconfire.base.loop import Schedule
from beaconfire.base.timers import Timers
from beaconfire.engines.memory import MemoryEngine, memory_engine
from beaconfire.engines.port import (
    BrokerEvents,
    ControlHandler,
    Engine,
    EngineState,
    EngineStatistics,
    HistoryOptions,
    HistoryPage,
    MemberChange,
    PresenceStats,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.testing.lanes import Lanes
from beaconfire.testing.shared_link import Lane, SharedLink


class SharedStore:
    """The store and the network between it and the nodes. `connect` makes the engine of one node.

    `random` returns numbers in [0, 1); with `random.Random(seed).random` a run can be repeated. `schedule` runs a
    function on the next turn of the event loop (`call_soon`); then everything is delivered by itself. Without it, a
    test calls `deliver_one` or `deliver_all`.
    """

    def __init__(self, timers: Timers, random: Callable[[], float], schedule: Schedule | None = None) -> None:
        self.timers = timers
        self.memory: MemoryEngine = memory_engine(timers.clock)
        self.links: list[SharedLink] = []
        self._network: Lanes[Lane] = _ScheduledLanes(random, self, schedule) if schedule is not None else Lanes(random)
        self._started = False

    def connect(self, name: str = "shared") -> SharedEngine:
        """An engine for one more node. Its calls do not suspend, except while the link is silently lost, and surveys:
        `control_calls` makes them suspend."""
        link = SharedLink(self._network)
        self.links.append(link)
        return SharedEngine(
            name,
            SharedBroker(self, link, name),
            SharedPresence(self, link),
            SharedControlBus(self, link),
            store=self,
            link=link,
        )

    @property
    def on_their_way(self) -> int:
        """The number of announcements and control messages that are not delivered yet."""
        return len(self._network)

    def deliver_one(self) -> None:
        """Delivers one of them, if there is any."""
        if len(self._network):
            self._network.take()()

    def deliver_all(self) -> None:
        """Delivers all, also those that are added meanwhile."""
        while len(self._network):
            self._network.take()()

    def lose_history(self, channel: str) -> None:
        """Forgets the stream of the channel with its position. The next use starts a new epoch."""
        self.memory.broker.forget(channel)

    async def start(self) -> None:
        """`SharedBroker.start` calls this."""
        if not self._started:
            self._started = True
            await self.memory.broker.start(self)

    def live_links(self) -> list[SharedLink]:
        return [link for link in self.links if link.live]

    # engines.port.BrokerEvents of the memory engine: each announcement goes to all nodes that have attached the channel

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        previous: int,
        exclude: Sequence[str],
        delta: bool = False,
    ) -> None:
        self._announce(
            channel, lambda events: events.on_publication(channel, publication, epoch, previous, exclude, delta)
        )

    def on_join(self, channel: str, info: ClientInfo) -> None:
        self._announce(channel, lambda events: events.on_join(channel, info))

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        self._announce(channel, lambda events: events.on_leave(channel, info))

    def on_link_down(self, channels: Sequence[str] | None) -> None:
        raise AssertionError("the memory engine has no link")

    def on_link_up(self, channels: Sequence[str] | None) -> None:
        raise AssertionError("the memory engine has no link")

    def _announce(self, channel: str, announcement: Callable[[BrokerEvents], None]) -> None:
        for link in self.links:
            if channel in link.attached:
                link.announce(channel, announcement)


class _ScheduledLanes(Lanes[Lane]):
    """Schedules one delivery for each action."""

    def __init__(self, random: Callable[[], float], store: SharedStore, schedule: Schedule) -> None:
        super().__init__(random)
        self._store = store
        self._schedule = schedule

    def add(self, lane: Lane, action: Callable[[], None]) -> None:
        super().add(lane, action)
        self._schedule(self._store.deliver_one)


class SharedEngine(Engine, frozen=True, kw_only=True):
    """The engine of one node. `link` loses and restores the connection to the store."""

    store: SharedStore
    link: SharedLink

    def state(self) -> EngineState:
        """See `Engine.state`."""
        return self.link.state()

    def sweep(self) -> bool:
        """See `Engine.sweep`."""
        return self.store.memory.sweep()

    def statistics(self) -> EngineStatistics:
        """See `Engine.statistics`. Nothing is kept on the node."""
        return EngineStatistics()


class SharedBroker:
    """Implements `Broker` for one node."""

    def __init__(self, store: SharedStore, link: SharedLink, name: str) -> None:
        self._store = store
        self._link = link
        self._name = name
        self._broker = store.memory.broker

    async def start(self, events: BrokerEvents) -> None:
        """See `Broker.start`."""
        await self._link.pass_call("start")
        await self._store.start()
        self._link.events = events

    async def stop(self) -> None:
        """See `Broker.stop`. The streams stay."""
        self._link.events = None
        self._link.drop("channel")
        await self._detach(list(self._link.attached))

    async def ping(self) -> None:
        """See `Broker.ping`."""
        await self._link.pass_call("ping")

    async def attach(self, channels: Sequence[str]) -> None:
        """See `Broker.attach`. Raises RuntimeError unless started."""
        assert not isinstance(channels, str), "a str is a sequence of channels with one letter"
        await self._link.pass_call("attach", channels)
        if self._link.events is None:
            raise RuntimeError("the shared broker is not started")
        await self._broker.attach(channels)
        self._link.attached.update(channels)

    async def detach(self, channels: Sequence[str]) -> None:
        """See `Broker.detach`. What is on its way still arrives."""
        assert not isinstance(channels, str), "a str is a sequence of channels with one letter"
        await self._link.pass_call("detach")
        await self._detach(channels)

    async def _detach(self, channels: Iterable[str]) -> None:
        self._link.attached.difference_update(channels)
        links = self._store.links
        await self._broker.detach([each for each in channels if not any(each in link.attached for link in links)])

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        """See `Broker.publish`. The only durability is "memory"."""
        await self._link.pass_call("publish")
        durability = options.history.durability
        if durability != "memory":
            raise CommandError(
                NOT_AVAILABLE, f"durability {durability!r}: the engine {self._name!r} offers only 'memory'"
            )
        return await self._broker.publish(channel, data, options, info, tags)

    async def announce(self, channel: str, changes: Sequence[MemberChange]) -> None:
        """See `Broker.announce`."""
        await self._link.pass_call("announce")
        await self._broker.announce(channel, changes)

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        """See `Broker.history`."""
        await self._link.pass_call("history")
        return await self._broker.history(channel, options, limit, since, reverse)

    async def positions(self, channels: Mapping[str, HistoryOptions]) -> dict[str, StreamPosition]:
        """See `Broker.positions`."""
        await self._link.pass_call("positions")
        return await self._broker.positions(channels)

    async def remove_history(self, channel: str) -> None:
        """See `Broker.remove_history`."""
        await self._link.pass_call("remove_history")
        await self._broker.remove_history(channel)


class SharedPresence:
    """Implements `PresenceStore`: the entries of all nodes are together."""

    def __init__(self, store: SharedStore, link: SharedLink) -> None:
        self._link = link
        self._presence = store.memory.presence

    async def add(self, channel: str, members: Sequence[ClientInfo], ttl_s: float) -> None:
        """See `PresenceStore.add`."""
        await self._link.pass_call("presence_add")
        await self._presence.add(channel, members, ttl_s)

    async def remove(self, channel: str, clients: Sequence[str]) -> None:
        """See `PresenceStore.remove`."""
        assert not isinstance(clients, str), "a str is a sequence of clients with one letter"
        await self._link.pass_call("presence_remove")
        await self._presence.remove(channel, clients)

    async def refresh(self, channel: str, clients: Sequence[str], ttl_s: float) -> Sequence[str]:
        """See `PresenceStore.refresh`."""
        assert not isinstance(clients, str), "a str is a sequence of clients with one letter"
        await self._link.pass_call("presence_refresh")
        return await self._presence.refresh(channel, clients, ttl_s)

    async def members(self, channel: str) -> dict[str, ClientInfo]:
        """See `PresenceStore.members`."""
        await self._link.pass_call("presence_members")
        return await self._presence.members(channel)

    async def stats(self, channel: str) -> PresenceStats:
        """See `PresenceStore.stats`."""
        await self._link.pass_call("presence_stats")
        return await self._presence.stats(channel)


class SharedControlBus:
    """Implements `ControlBus`. All messages are queued, also those of a node to itself."""

    def __init__(self, store: SharedStore, link: SharedLink) -> None:
        self._store = store
        self._link = link

    async def start(self, uid: str, handler: ControlHandler) -> None:
        """See `ControlBus.start`. Raises RuntimeError if the uid is in use."""
        await self._link.pass_call("control_start")
        if any(link.handler is not None and link.uid == uid for link in self._store.links):
            raise RuntimeError(f"there is a node with the uid {uid!r} already")
        self._link.uid = uid
        self._link.handler = handler

    async def stop(self) -> None:
        """See `ControlBus.stop`."""
        self._link.handler = None
        self._link.drop("control")

    async def broadcast(self, message: bytes) -> None:
        """See `ControlBus.broadcast`."""
        await self._link.pass_call("control_broadcast")
        for link in self._store.live_links():
            link.deliver(self._link.uid, lambda handler: handler.on_control(message))

    async def send(self, node: str, message: bytes) -> bool:
        """See `ControlBus.send`."""
        await self._link.pass_call("control_send")
        for link in self._store.live_links():
            if link.uid == node:
                link.deliver(self._link.uid, lambda handler: handler.on_control(message))
                return True
        return False

    async def survey(self, request: bytes, timeout_s: float) -> list[bytes]:
        """See `ControlBus.survey`. Returns as soon as all nodes have answered. Raises RuntimeError unless started."""
        await self._link.pass_call("control_survey")
        if self._link.handler is None:
            raise RuntimeError("the shared control bus is not started")
        answers = [self._link.handler.on_survey(request)]
        others = [link for link in self._store.live_links() if link is not self._link]
        finished = asyncio.Event()

        def collect(answer: bytes) -> None:
            answers.append(answer)
            if len(answers) == len(others) + 1:
                finished.set()

        for link in others:
            link.deliver(self._link.uid, partial(self._answer, link, request, collect))
        if not others:
            return answers
        timer = self._store.timers.after(timeout_s, finished.set)
        try:
            await finished.wait()
        finally:
            timer.cancel()
        return list(answers)

    def _answer(
        self, link: SharedLink, request: bytes, collect: Callable[[bytes], None], handler: ControlHandler
    ) -> None:
        """The request has arrived at the other node of `link`, whose answer goes back to this node."""
        answer = handler.on_survey(request)
        self._link.deliver(link.uid, lambda _: collect(answer))

    async def nodes(self) -> Sequence[str]:
        """See `ControlBus.nodes`."""
        await self._link.pass_call("control_nodes")
        return [link.uid for link in self._store.live_links()]
