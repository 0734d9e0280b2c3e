"""The broker of the SQLite engine: streams of durability `disk` in the file, everything else in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Protocol, TypeVar

from msgspec import Raw

from beaconfire.base.errors import NOT_AVAILABLE, CommandError
from beaconfire.engines.port import (
    Broker,
    BrokerEvents,
    HistoryOptions,
    HistoryPage,
    MemberChange,
    PublishOptions,
    PublishOutcome,
)
from beaconfire.engines.sqlite.operations import Clear, Operation, Ping, Positions, Publish, Read
from beaconfire.engines.sqlite.store import Published
from beaconfire.engines.sqlite.thread import WriterThread
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo

T = TypeVar("T")

POSITIONS_PER_OPERATION: Final = 256
"""How many positions are read in one step, so that publications do not wait for many channels."""


class LiveBroker(Broker, Protocol):
    """A broker in this process for attachments, announcements, and streams of durability `memory`."""

    def is_attached(self, channel: str) -> bool:
        """Whether the node gets the announcements of this channel. Called in any thread."""

    def make_announcement(self, channel: str, announcement: Callable[[BrokerEvents], None]) -> None:
        """Makes an announcement if the channel is attached, in one order with all others."""


class SqliteBroker:
    """Implements `Broker`.

    A publication of durability `disk` is announced after the commit, so nobody has ever seen an offset that cannot be
    read again. Those of one channel are announced in the order of their offsets.
    """

    def __init__(self, live: LiveBroker, thread: WriterThread) -> None:
        self._live = live
        self._thread = thread

    async def start(self, events: BrokerEvents) -> None:
        """Opens the file. Raises StorageUnusable."""
        await self._live.start(events)
        try:
            await self._thread.start()
        except BaseException:
            await self._live.stop()
            await self._thread.stop()
            raise

    async def stop(self) -> None:
        """See `Broker.stop`. Publishes that are not answered yet are still stored."""
        await self._live.stop()
        await self._thread.stop()

    async def ping(self) -> None:
        """See `Broker.ping`. The writer answers, also while the disk is full."""
        await self._run(Ping(_future()))

    async def attach(self, channels: Sequence[str]) -> None:
        await self._live.attach(channels)

    async def detach(self, channels: Sequence[str]) -> None:
        await self._live.detach(channels)

    # The coroutines of the other broker are returned, which saves a coroutine for each call.

    def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Coroutine[Any, Any, PublishOutcome]:
        """See `Broker.publish`."""
        if not _is_on_disk(options.history):
            return self._live.publish(channel, data, options, info, tags)
        return self._publish(
            Publish(_future(), channel, data.copy(), options, info, dict(tags) if tags else None, self._announce),
            options.history,
        )

    async def _publish(self, operation: Publish, history: HistoryOptions) -> PublishOutcome:
        return (await self._run_on_disk(operation, history)).outcome

    async def announce(self, channel: str, changes: Sequence[MemberChange]) -> None:
        await self._live.announce(channel, changes)

    def history(
        self,
        channel: str,
        options: HistoryOptions,
        limit: int,
        since: StreamPosition | None = None,
        reverse: bool = False,
    ) -> Coroutine[Any, Any, HistoryPage]:
        """See `Broker.history`."""
        if not _is_on_disk(options):
            return self._live.history(channel, options, limit, since, reverse)
        return self._run_on_disk(Read(_future(), channel, options, limit, since, reverse), options)

    async def positions(self, channels: Mapping[str, HistoryOptions]) -> dict[str, StreamPosition]:
        """See `Broker.positions`."""
        on_disk = {channel: options for channel, options in channels.items() if _is_on_disk(options)}
        positions = await self._live.positions(
            {channel: options for channel, options in channels.items() if channel not in on_disk}
        )
        rest = iter(on_disk.items())
        while part := dict(islice(rest, POSITIONS_PER_OPERATION)):
            for options in part.values():
                _check_offered(options)
            found = await self._run(Positions(_future(), part))
            positions.update(found)
        return positions

    async def remove_history(self, channel: str) -> None:
        """See `Broker.remove_history`. The channel may have had another durability before."""
        await self._live.remove_history(channel)
        await self._run(Clear(_future(), channel))

    async def _run_on_disk(self, operation: Operation[T], options: HistoryOptions) -> T:
        _check_offered(options)
        return await self._run(operation)

    async def _run(self, operation: Operation[T]) -> T:
        self._thread.submit(operation)
        return await operation.future

    def _announce(self, channel: str, published: Published, options: PublishOptions) -> None:
        publication, epoch = published.publication, published.outcome.position.epoch
        assert publication is not None, "only publications are announced"
        previous, exclude, delta = publication.offset - 1, options.exclude, options.delta
        self._live.make_announcement(
            channel, lambda events: events.on_publication(channel, publication, epoch, previous, exclude, delta)
        )


def _is_on_disk(options: HistoryOptions) -> bool:
    return options.durability != "memory" and options.enabled


def _check_offered(options: HistoryOptions) -> None:
    """Raises CommandError 108 for a durability that the engine does not offer."""
    if options.durability != "disk":
        raise CommandError(
            NOT_AVAILABLE, f"durability {options.durability!r}: the engine 'sqlite' offers 'memory' and 'disk'"
        )


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()
