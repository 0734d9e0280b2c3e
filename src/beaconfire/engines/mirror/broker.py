"""The broker of a mirror: the old engine decides, the new one follows, and answers reads of some channels."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from msgspec import Raw
from msgspec.structs import replace

from beaconfire.base.errors import EngineError
from beaconfire.engines.mirror.replicator import Replicator
from beaconfire.engines.no_node import NoNode
from beaconfire.engines.port import (
    Broker,
    BrokerEvents,
    Durability,
    HistoryOptions,
    HistoryPage,
    MemberChange,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.engines.transfer import Transfer
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo

_PARTS = 10_000
"""Channels are divided into this many parts, so a percentage may have two decimals."""


class MirrorBroker:
    """Implements `Broker`.

    A publish takes effect in the old engine, whose outcome is returned. Its effect is loaded into the new engine at
    once afterwards, without waiting for it. So the new engine can neither fail nor delay a publish.
    """

    def __init__(
        self,
        old: Broker,
        new: Broker,
        new_transfer: Transfer,
        replicator: Replicator,
        old_durability: Durability,
        new_durability: Durability,
    ) -> None:
        """Streams of `old_durability` are mirrored. In the new engine they have `new_durability`."""
        self._old = old
        self._new = new
        self._new_transfer = new_transfer
        self._replicator = replicator
        self._old_durability = old_durability
        self._new_durability = new_durability
        self.read_percent = 0.0
        """The part of the channels whose history is read from the new engine. 0 steps back at once."""
        self.settles = False
        """Whether the new engine goes on alone after `stop`."""

    async def start(self, events: BrokerEvents) -> None:
        """Starts both engines, and begins to copy."""
        await self._old.start(events)
        try:
            await self._new.start(NoNode())
        except BaseException:
            await self._old.stop()
            raise
        self._replicator.start()

    async def stop(self) -> None:
        """Loads what the new engine does not have yet, and stops both engines."""
        try:
            is_complete = await self._replicator.stop()
            if is_complete and self.settles:
                await self._new_transfer.settle()
        finally:
            await self._old.stop()
            await self._new.stop()

    async def ping(self) -> None:
        await self._old.ping()

    async def attach(self, channels: Sequence[str]) -> None:
        await self._old.attach(channels)

    async def detach(self, channels: Sequence[str]) -> None:
        await self._old.detach(channels)

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        """See `Broker.publish`: by the old engine."""
        if not (options.history.enabled or options.idempotency_key) or not self._is_mirrored(options.history):
            return await self._old.publish(channel, data, options, info, tags)
        self._replicator.begin_change(channel)
        try:
            return await self._old.publish(channel, data, options, info, tags)
        finally:
            self._replicator.end_change(channel)

    async def announce(self, channel: str, changes: Sequence[MemberChange]) -> None:
        await self._old.announce(channel, changes)

    async def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> HistoryPage:
        """See `Broker.history`: by the new engine, if the channel is in step and belongs to the percentage.

        What the new engine cannot answer as the old one would, the old one answers.
        """
        loaded = self._replicator.loaded_position(channel) if self._is_read_new(channel, options) else None
        if loaded is not None and loaded.epoch:
            in_new = replace(options, durability=self._new_durability)
            try:
                page = await self._new.history(channel, in_new, limit, since, reverse)
            except EngineError:
                self._replicator.mark_stale(channel)
            else:
                if page.position == loaded and page.continues:
                    return page
                if page.position != loaded:
                    self._replicator.mark_stale(channel)
        page = await self._old.history(channel, options, limit, since, reverse)
        if self._is_mirrored(options):
            self._replicator.compare_position(channel, page.position)
        return page

    async def positions(self, channels: Mapping[str, HistoryOptions]) -> dict[str, StreamPosition]:
        """See `Broker.positions`: by the old engine, which also keeps them alive."""
        positions = await self._old.positions(channels)
        for channel, position in positions.items():
            if self._is_mirrored(channels[channel]):
                self._replicator.compare_position(channel, position)
        return positions

    async def remove_history(self, channel: str) -> None:
        self._replicator.begin_change(channel)
        try:
            await self._old.remove_history(channel)
        finally:
            self._replicator.end_change(channel)

    def _is_mirrored(self, options: HistoryOptions) -> bool:
        return options.durability == self._old_durability

    def _is_read_new(self, channel: str, options: HistoryOptions) -> bool:
        part = zlib.crc32(channel.encode()) % _PARTS
        return part < self.read_percent * (_PARTS / 100) and self._is_mirrored(options)
