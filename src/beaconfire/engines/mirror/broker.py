"""The broker of a mirror: the old engine decides, the new one follows, and answers reads of some channels."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec import Raw
from msgspec.structs import replace

from beaconfire.base.errors import EngineError
from beaconfire.engines.mirror.replicator import Replicator
from beaconfire.engines.mirror.restoring import restore
from beaconfire.engines.no_node import NoNode
from beaconfire.engines.port import (
    BrokerEvents,
    Durability,
    Engine,
    HistoryOptions,
    HistoryPage,
    MemberChange,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.engines.transfer import Transfer
from beaconfire.model.events import EventSink, MigrationFailed, MigrationProgressed
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo

LAST_LOADS_S: Final = 6.0
"""How long the changes that the new engine does not have yet may take at the end: enough for ten thousand channels. The
supervisor of worker processes gives the hub ten seconds to end."""

_PARTS: Final = 10_000
"""Channels are divided into this many parts, so a percentage may have two decimals."""


class MirrorBroker:
    """Implements `Broker`.

    A publish takes effect in the old engine, whose outcome is returned. Its effect is loaded into the new engine at
    once afterwards, without waiting for it. So the new engine can neither fail nor delay a publish.
    """

    def __init__(
        self,
        old: Engine,
        new: Engine,
        old_transfer: Transfer,
        new_transfer: Transfer,
        replicator: Replicator,
        unix_s: Callable[[], float],
        events: EventSink,
        read_percent: float,
        timeout_s: float,
    ) -> None:
        """See `mirror_engine`."""
        self._old = old.broker
        self._new = new.broker
        self._old_engine = old
        self._old_transfer = old_transfer
        self._new_transfer = new_transfer
        self._replicator = replicator
        self._unix_s = unix_s
        self._events = events
        self._old_durability = best_durability(old)
        self._new_durability = best_durability(new)
        self._is_volatile = self._old_durability == "memory"
        """Whether the old engine ends with its process."""
        self._timeout_s = timeout_s
        self.read_percent = read_percent
        """See `Migration.set_read_percent`."""

    async def start(self, events: BrokerEvents) -> None:
        """Starts both engines, and begins to copy. A volatile old engine first gets what the new one has."""
        await self._old.start(events)
        try:
            await self._new.start(NoNode())
            try:
                if self._is_volatile and not await self._old_transfer.count():
                    await self._restore()
            except BaseException:
                await self._new.stop()
                raise
        except BaseException:
            await self._old.stop()
            raise
        self._replicator.start()

    async def _restore(self) -> None:
        restored = await restore(
            self._old_engine, self._old_transfer, self._new_transfer, self._unix_s, self._replicator.remember
        )
        if restored.channels:
            self._events.emit(MigrationProgressed("restored", restored.channels))

    async def stop(self) -> None:
        """Loads what the new engine does not have yet, and stops both engines."""
        try:
            await self._hand_over()
        except EngineError as error:
            self._events.emit(MigrationFailed(error.detail))
        except TimeoutError:
            self._events.emit(MigrationFailed(f"the last changes were not loaded within {LAST_LOADS_S:g} s"))
        finally:
            await self._old.stop()
            await self._new.stop()

    async def _hand_over(self) -> None:
        """See `engines.mirror`. In this order: at no moment are both engines the original."""
        async with asyncio.timeout(LAST_LOADS_S):
            is_complete = await self._replicator.stop()
        if is_complete and (self._is_volatile or self.read_percent >= 100):
            if not self._is_volatile:
                await self._old_transfer.follow()
            await self._new_transfer.settle()

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
        if self._is_read_new(channel, options) and (
            page := await self._read_new(channel, options, limit, since, reverse)
        ):
            return page
        page = await self._old.history(channel, options, limit, since, reverse)
        if self._is_mirrored(options):
            self._replicator.compare_use(channel, page.position, options.meta_ttl_s)
        return page

    async def _read_new(
        self, channel: str, options: HistoryOptions, limit: int, since: StreamPosition | None, reverse: bool
    ) -> HistoryPage | None:
        """The page of the new engine, or None if the old engine must answer."""
        loaded = self._replicator.loaded_position(channel)
        if loaded is None or not loaded.epoch:
            return None
        in_new = replace(options, durability=self._new_durability)
        try:
            async with asyncio.timeout(self._timeout_s):
                page = await self._new.history(channel, in_new, limit, since, reverse)
        except EngineError as error:
            self._replicator.read_failed(channel, error.detail)
            return None
        except TimeoutError:
            self._replicator.read_failed(channel, f"no page within {self._timeout_s:g} s")
            return None
        # The position in the old engine must live as long as if the page came from there.
        position = (await self.positions({channel: options}))[channel]
        if page.position == position:
            return page if page.continues else None
        if page.position != self._replicator.loaded_position(channel):
            self._replicator.mark_stale(channel)
        return None

    async def positions(self, channels: Mapping[str, HistoryOptions]) -> dict[str, StreamPosition]:
        """See `Broker.positions`: by the old engine, which also keeps them alive."""
        positions = await self._old.positions(channels)
        for channel, position in positions.items():
            options = channels[channel]
            if self._is_mirrored(options):
                self._replicator.compare_use(channel, position, options.meta_ttl_s)
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
        if not self.read_percent:
            return False
        part = zlib.crc32(channel.encode()) % _PARTS
        return part < self.read_percent * (_PARTS / 100) and self._is_mirrored(options)


def best_durability(engine: Engine) -> Durability:
    """The durability whose streams are mirrored."""
    return engine.durabilities[-1]
