"""The broker of a worker process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Raw

from beaconfire.base.errors import NOT_AVAILABLE, CommandError
from beaconfire.engines.port import (
    BrokerEvents,
    Durability,
    HistoryOptions,
    HistoryPage,
    MemberChange,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.engines.remote.link import Link
from beaconfire.engines.wire.messages import (
    Announce,
    Announced,
    Attach,
    Change,
    Detach,
    Done,
    Joined,
    Left,
    LinkDown,
    LinkUp,
    Outcome,
    Page,
    Ping,
    Positions,
    Publish,
    ReadHistory,
    ReadPositions,
    RemoveHistory,
)
from beaconfire.engines.wire.values import data_of, from_info, from_published, to_info
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication, to_payload


class RemoteBroker:
    """Implements `Broker`. Each call is one request; the hub does the rest."""

    def __init__(self, link: Link, name: str, durabilities: tuple[Durability, ...]) -> None:
        """`name` and `durabilities` are those of the engine."""
        self._link = link
        self._name = name
        self._durabilities = durabilities
        self._events: BrokerEvents | None = None
        link.handle(Announced, self._on_announced)
        link.handle(Joined, self._on_joined)
        link.handle(Left, self._on_left)
        link.handle(LinkDown, self._on_link_down)
        link.handle(LinkUp, self._on_link_up)

    async def start(self, events: BrokerEvents) -> None:
        """Connects to the hub. Raises EngineUnavailable if the hub does not answer."""
        await self._link.start(events)
        self._events = events

    async def stop(self) -> None:
        """Ends the link. The hub ends the attachments."""
        self._events = None
        await self._link.stop()

    async def ping(self) -> None:
        await self._link.send(Ping(0), Done)

    async def attach(self, channels: Sequence[str]) -> None:
        assert not isinstance(channels, str), "a str is a sequence of channels with one letter"
        await self._link.send(Attach(0, list(channels)), Done)

    async def detach(self, channels: Sequence[str]) -> None:
        assert not isinstance(channels, str), "a str is a sequence of channels with one letter"
        await self._link.send(Detach(0, list(channels)), Done)

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        """See `Broker.publish`. If the link is lost before the answer, the outcome is not known and nothing is
        repeated."""
        durability = options.history.durability
        if durability not in self._durabilities:
            offered = ", ".join(map(repr, self._durabilities))
            raise CommandError(
                NOT_AVAILABLE, f"durability {durability!r}: the engine {self._name!r} offers only {offered}"
            )
        request = Publish(
            0, channel, data_of(data), options, None if info is None else to_info(info), dict(tags) if tags else None
        )
        return (await self._link.send(request, Outcome)).outcome

    async def announce(self, channel: str, changes: Sequence[MemberChange]) -> None:
        sent = [Change(change.joined, to_info(change.info)) for change in changes]
        await self._link.send(Announce(0, channel, sent), Done)

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        page = await self._link.send(ReadHistory(0, channel, options, limit, since, reverse), Page)
        return HistoryPage([from_published(each) for each in page.publications], page.position, page.continues)

    async def positions(self, channels: Mapping[str, HistoryOptions]) -> dict[str, StreamPosition]:
        return (await self._link.send(ReadPositions(0, dict(channels)), Positions)).positions

    async def remove_history(self, channel: str) -> None:
        await self._link.send(RemoveHistory(0, channel), Done)

    # From the hub

    def _on_announced(self, message: Announced) -> None:
        if self._events is None:
            return
        info = message.info
        publication = Publication(
            to_payload(message.data),
            None if info is None else from_info(info),
            message.offset,
            message.tags,
            message.publication_epoch,
        )
        self._events.on_publication(
            message.channel, publication, message.epoch, message.previous, message.exclude, message.delta
        )

    def _on_joined(self, message: Joined) -> None:
        if self._events is not None:
            self._events.on_join(message.channel, from_info(message.info))

    def _on_left(self, message: Left) -> None:
        if self._events is not None:
            self._events.on_leave(message.channel, from_info(message.info))

    def _on_link_down(self, message: LinkDown) -> None:
        if self._events is not None:
            self._events.on_link_down(message.channels)

    def _on_link_up(self, message: LinkUp) -> None:
        if self._events is not None:
            self._events.on_link_up(message.channels)
