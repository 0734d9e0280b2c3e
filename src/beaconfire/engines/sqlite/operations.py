"""What the broker asks the writer to do. Each operation is one step, on the thread of the writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from msgspec import Raw

from beaconfire.base.errors import CommandError
from beaconfire.engines.port import HistoryOptions, HistoryPage, PublishOptions
from beaconfire.engines.sqlite.store import Published, Store
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo

T = TypeVar("T")


class Operation(Generic[T]):
    """`future` belongs to the event loop. The writer sets `result` or `error`; then the loop calls `answer` and, for
    all operations of the batch, `announce`."""

    stores = False
    """Whether the operation needs room on the disk."""
    reads = False
    """Whether `read` does something."""

    __slots__ = ("error", "future", "result", "size")

    def __init__(self, future: asyncio.Future[T], size: int = 0) -> None:
        """`size` is the number of bytes that the operation writes, roughly."""
        self.future = future
        self.size = size
        self.result: T | None = None
        self.error: CommandError | None = None

    def apply(self, store: Store) -> None:
        """Before the commit. Raises CommandError, without any effect, and sqlite3.Error."""

    def read(self, store: Store) -> None:
        """After the commit. Raises sqlite3.Error."""

    def announce(self) -> None:
        """On the event loop: tells the node."""

    def answer(self) -> None:
        """On the event loop: hands over the outcome. The caller goes on in a later turn."""
        if self.future.done():  # The caller did not wait any longer.
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]  # `apply` or `read` has set the result


class Publish(Operation[Published]):
    """Publishes, and announces on the event loop, also if the caller does not wait any longer."""

    stores = True

    __slots__ = ("_announce", "_channel", "_data", "_info", "_options", "_tags")

    def __init__(
        self,
        future: asyncio.Future[Published],
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None,
        tags: Mapping[str, str] | None,
        announce: Callable[[str, Published, PublishOptions], None],
    ) -> None:
        super().__init__(future, len(data))
        self._channel = channel
        self._data = data
        self._options = options
        self._info = info
        self._tags = tags
        self._announce = announce

    def apply(self, store: Store) -> None:
        self.result = store.publish(self._channel, self._data, self._options, self._info, self._tags)

    def announce(self) -> None:
        published = self.result
        if self.error is None and published is not None and published.publication is not None:
            self._announce(self._channel, published, self._options)


class Read(Operation[HistoryPage]):
    """Reads a page. The batch before has created the stream, if there was none."""

    reads = True

    __slots__ = ("_arguments", "_channel", "_meta_ttl_s")

    def __init__(
        self,
        future: asyncio.Future[HistoryPage],
        channel: str,
        options: HistoryOptions,
        *arguments: Any,
    ) -> None:
        """`arguments` are `limit`, `since` and `reverse` of `Broker.history`."""
        super().__init__(future)
        self._channel = channel
        self._meta_ttl_s = options.meta_ttl_s
        self._arguments = arguments

    def apply(self, store: Store) -> None:
        store.use(self._channel, self._meta_ttl_s)

    def read(self, store: Store) -> None:
        self.result = store.read(self._channel, self._meta_ttl_s, *self._arguments)


class Positions(Operation[dict[str, StreamPosition]]):
    """Reads the positions of some channels."""

    __slots__ = ("_channels",)

    def __init__(
        self, future: asyncio.Future[dict[str, StreamPosition]], channels: Mapping[str, HistoryOptions]
    ) -> None:
        super().__init__(future)
        self._channels = channels

    def apply(self, store: Store) -> None:
        self.result = {channel: store.use(channel, options.meta_ttl_s) for channel, options in self._channels.items()}


class Clear(Operation[None]):
    """Removes the publications of a channel."""

    __slots__ = ("_channel",)

    def __init__(self, future: asyncio.Future[None], channel: str) -> None:
        super().__init__(future)
        self._channel = channel

    def apply(self, store: Store) -> None:
        store.clear(self._channel)


class Ping(Operation[None]):
    """Does nothing: the writer answers."""

    __slots__ = ()
