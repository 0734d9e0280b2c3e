"""Implementing the three ports of an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Raw

from beaconfire.engines.port import (
    Broker,
    BrokerEvents,
    ControlBus,
    ControlHandler,
    Engine,
    EngineState,
    EngineStatistics,
    HistoryOptions,
    HistoryPage,
    MemberChange,
    PresenceStats,
    PresenceStore,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication


class LoopbackBroker:
    """A broker of one node, without history."""

    _events: BrokerEvents

    async def start(self, events: BrokerEvents) -> None:
        self._events = events

    async def stop(self) -> None:
        self._events.on_link_down(None)
        self._events.on_link_up(["news"])

    async def ping(self) -> None: ...

    async def attach(self, channels: Sequence[str]) -> None: ...

    async def detach(self, channels: Sequence[str]) -> None: ...

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        publication = Publication(data=data, info=info, tags=dict(tags) if tags else None)
        self._events.on_publication(channel, publication, "", 0, options.exclude, options.delta)
        return PublishOutcome(StreamPosition(0, ""))

    async def announce(self, channel: str, changes: Sequence[MemberChange]) -> None:
        for change in changes:
            if change.joined:
                self._events.on_join(channel, change.info)
            else:
                self._events.on_leave(channel, change.info)

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        return HistoryPage([], StreamPosition(0, "") if since is None else since, continues=since is None)

    async def positions(self, channels: Mapping[str, HistoryOptions]) -> dict[str, StreamPosition]:
        return dict.fromkeys(channels, StreamPosition(0, ""))

    async def remove_history(self, channel: str) -> None: ...


class LocalPresence:
    """A presence store in which entries never expire."""

    def __init__(self) -> None:
        self._channels: dict[str, dict[str, ClientInfo]] = {}

    async def add(self, channel: str, members: Sequence[ClientInfo], ttl_s: float) -> None:
        self._channels.setdefault(channel, {}).update({info.client: info for info in members})

    async def remove(self, channel: str, clients: Sequence[str]) -> None:
        for client in clients:
            self._channels.get(channel, {}).pop(client, None)

    async def refresh(self, channel: str, clients: Sequence[str], ttl_s: float) -> Sequence[str]:
        return [client for client in clients if client not in self._channels.get(channel, {})]

    async def members(self, channel: str) -> dict[str, ClientInfo]:
        return dict(self._channels.get(channel, {}))

    async def stats(self, channel: str) -> PresenceStats:
        infos = self._channels.get(channel, {}).values()
        return PresenceStats(num_clients=len(infos), num_users=len({info.user for info in infos}))


class LocalControlBus:
    """A control bus of one node."""

    _handler: ControlHandler

    async def start(self, uid: str, handler: ControlHandler) -> None:
        self._uid = uid
        self._handler = handler

    async def stop(self) -> None: ...

    async def broadcast(self, message: bytes) -> None:
        self._handler.on_control(message)

    async def send(self, node: str, message: bytes) -> bool:
        self._handler.on_control(message)
        return True

    async def nodes(self) -> Sequence[str]:
        return [self._uid]

    async def survey(self, request: bytes, timeout_s: float) -> list[bytes]:
        return [self._handler.on_survey(request)]


class EngineWithLink(Engine, frozen=True):
    """An engine that knows its state. The other methods keep their defaults."""

    def state(self) -> EngineState:
        return EngineState(up=False, detail="the link is lost")


class PresenceByTuple(LocalPresence):
    async def members(self, channel: str) -> tuple[ClientInfo, ...]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return ()


broker: Broker = LoopbackBroker()
presence: PresenceStore = LocalPresence()
control: ControlBus = LocalControlBus()
engine = Engine("loopback", broker, presence, control)

statistics: EngineStatistics = EngineWithLink("linked", broker, presence, control, suspends=True).statistics()

Engine("swapped", presence, broker, control)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Engine("incomplete", broker, presence)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
engine.name = "renamed"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def publish(broker: Broker) -> int:
    outcome = await broker.publish("news", Raw(b"1"), PublishOptions(exclude=("client-1",)), tags={"region": "eu"})
    await broker.publish("news", {"text": "hi"}, PublishOptions())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return outcome.position.offset
