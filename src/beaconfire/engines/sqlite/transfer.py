"""Moves streams into and out of the database file of a started SQLite engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from beaconfire.engines.sqlite.operations import Operation
from beaconfire.engines.sqlite.store import Store
from beaconfire.engines.sqlite.thread import WriterThread
from beaconfire.engines.transfer import ChannelSlice, StreamImage

T = TypeVar("T")


class SqliteTransfer:
    """Implements `Transfer`. Each call is one operation of the writer thread, between the publications."""

    def __init__(self, thread: WriterThread) -> None:
        self._thread = thread

    async def count(self) -> int:
        """See `Transfer.count`: the channels that have a stream."""
        return await self._run(_ReadImages(_future(), lambda store: store.images.count()))

    async def channels(self, cursor: str, limit: int) -> ChannelSlice:
        """See `Transfer.channels`: in the order of the names."""
        return await self._run(_ReadImages(_future(), lambda store: store.images.channels(cursor, limit)))

    async def export(self, channels: Mapping[str, int], at_s: float) -> list[StreamImage]:
        """See `Transfer.export`. All images are from the same moment."""
        return await self._run(
            _ReadImages(
                _future(),
                lambda store: store.images.export(channels, at_s),
                lambda store: store.images.prepare(channels),
            )
        )

    async def load(self, images: Sequence[StreamImage]) -> Sequence[str]:
        """See `Transfer.load`. One transaction: all images or none."""
        size = sum(len(publication.data) for image in images for publication in image.publications)
        return await self._run(_WriteImages(_future(), lambda store: store.images.load(images), size))

    async def remove(self, channels: Sequence[str]) -> None:
        """See `Transfer.remove`."""
        await self._run(_WriteImages(_future(), lambda store: store.images.remove(channels)))

    async def settle(self) -> None:
        """See `Transfer.settle`. One transaction."""
        await self._run(_WriteImages(_future(), lambda store: store.images.settle()))

    async def adopt(self) -> None:
        """See `Transfer.adopt`. One transaction."""
        await self._run(_WriteImages(_future(), lambda store: store.images.adopt()))

    async def follow(self) -> None:
        """See `Transfer.follow`. One transaction. Ends when the file is opened again after an I/O error."""
        await self._run(_WriteImages(_future(), lambda store: store.images.follow()))

    async def _run(self, operation: Operation[T]) -> T:
        self._thread.submit(operation)
        return await operation.future


class _ReadImages(Operation[T]):
    """Reads the file after the commit."""

    reads = True

    __slots__ = ("_prepare", "_read")

    def __init__(
        self,
        future: asyncio.Future[T],
        read: Callable[[Store], T],
        prepare: Callable[[Store], None] = lambda store: None,
    ) -> None:
        super().__init__(future)
        self._read = read
        self._prepare = prepare

    def apply(self, store: Store) -> None:
        self._prepare(store)

    def read(self, store: Store) -> None:
        self.result = self._read(store)


class _WriteImages(Operation[T]):
    """Writes as a part of the batch. The result is true after the commit."""

    stores = True

    __slots__ = ("_write",)

    def __init__(self, future: asyncio.Future[T], write: Callable[[Store], T], size: int = 0) -> None:
        super().__init__(future, size)
        self._write = write

    def apply(self, store: Store) -> None:
        self.result = self._write(store)


def _future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()
