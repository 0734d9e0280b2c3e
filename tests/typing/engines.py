"""Implementing the three ports of an engine."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Raw

from beaconfire.engines.port import (
    Broker,
    BrokerEvents,
    ControlBus,
    ControlHandler,
    Engine,
    HistoryOptions,
    HistoryPage,
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
        self._events.on_link_lost(None)

    async def attach(self, channel: str) -> None: ...

    async def detach(self, channel: str) -> None: ...

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        publication = Publication(data=data, info=info, tags=dict(tags) if tags else None)
        self._events.on_publication(channel, publication, "", options.exclude, options.delta)
        return PublishOutcome(StreamPosition(0, ""))

    async def publish_join(self, channel: str, info: ClientInfo) -> None:
        self._events.on_join(channel, info)

    async def publish_leave(self, channel: str, info: ClientInfo) -> None:
        self._events.on_leave(channel, info)

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        return HistoryPage([], StreamPosition(0, "") if since is None else since)

    async def remove_history(self, channel: str) -> None: ...


class LocalPresence:
    """A presence store in which entries never expire."""

    def __init__(self) -> None:
        self._channels: dict[str, dict[str, ClientInfo]] = {}

    async def add(self, channel: str, info: ClientInfo, ttl_s: float) -> None:
        self._channels.setdefault(channel, {})[info.client] = info

    async def remove(self, channel: str, client: str) -> None:
        self._channels.get(channel, {}).pop(client, None)

    async def members(self, channel: str) -> dict[str, ClientInfo]:
        return dict(self._channels.get(channel, {}))

    async def stats(self, channel: str) -> PresenceStats:
        infos = self._channels.get(channel, {}).values()
        return PresenceStats(num_clients=len(infos), num_users=len({info.user for info in infos}))


class LocalControlBus:
    """A control bus of one node."""

    _handler: ControlHandler

    async def start(self, handler: ControlHandler) -> None:
        self._handler = handler

    async def stop(self) -> None: ...

    async def broadcast(self, message: bytes) -> None:
        self._handler.on_control(message)

    async def survey(self, request: bytes, timeout_s: float) -> list[bytes]:
        return [self._handler.on_survey(request)]


class PresenceByTuple(LocalPresence):
    async def members(self, channel: str) -> tuple[ClientInfo, ...]:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return ()


broker: Broker = LoopbackBroker()
presence: PresenceStore = LocalPresence()
control: ControlBus = LocalControlBus()
engine = Engine("loopback", broker, presence, control)

Engine("swapped", presence, broker, control)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Engine("incomplete", broker, presence)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
engine.name = "renamed"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


async def publish(broker: Broker) -> int:
    outcome = await broker.publish("news", Raw(b"1"), PublishOptions(exclude=("client-1",)), tags={"region": "eu"})
    await broker.publish("news", {"text": "hi"}, PublishOptions())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return outcome.position.offset
