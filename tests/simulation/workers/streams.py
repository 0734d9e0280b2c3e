"""What the engine of the hub has stored, as the clients and the workers must see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from msgspec import Raw

from beaconfire.base.tasks import run_in_one_step
from beaconfire.engines.interceptor import EngineCall, InterceptedBroker
from beaconfire.engines.memory import MemoryEngine
from beaconfire.engines.port import HistoryOptions, PublishOptions, PublishOutcome
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication
from tests.simulation.broken_guarantee import BrokenGuarantee
from tests.simulation.broker import CHANNELS, StreamStore
from tests.simulation.subscriber import HISTORY_SIZE

T = TypeVar("T")

HISTORY = HistoryOptions(HISTORY_SIZE, 1000.0)


class Stored(NamedTuple):
    """How a publication must be announced."""

    publication: Publication
    exclude: tuple[str, ...]
    delta: bool


class HubStreams(StreamStore):
    """The streams of a memory engine. `engine` is replaced when a hub starts that has lost its memory."""

    def __init__(self, engine: MemoryEngine) -> None:
        super().__init__()
        self.engine = engine
        self.stored: dict[tuple[str, str, int], Stored] = {}
        self._repeats: Counter[bytes] = Counter()

    def lose_all(self, engine: MemoryEngine) -> None:
        self.engine = engine
        self.streams_lost.update(CHANNELS)
        self.streams.clear()
        self._repeats.clear()

    def position(self, channel: str) -> StreamPosition:
        return run_in_one_step(self.engine.broker.positions({channel: HISTORY}))[channel]

    def record(self, channel: str, publication: Publication, options: PublishOptions, position: StreamPosition) -> None:
        """Raises BrokenGuarantee if this was stored before."""
        key = (channel, position.epoch, position.offset)
        self.published[key] = publication
        self.stored[key] = Stored(publication, options.exclude, options.delta)
        stream = self.streams.setdefault(channel, [])
        stream.append(publication)
        del stream[:-HISTORY_SIZE]
        data = bytes(publication.data)  # no two publications have the same
        self._repeats[data] += 1
        if self._repeats[data] > 1:
            raise BrokenGuarantee(f"{data!r} was stored twice in {channel}: {options}")

    def check_announcement(
        self, channel: str, publication: Publication, epoch: str, exclude: Sequence[str], delta: bool
    ) -> None:
        """Raises BrokenGuarantee unless a worker was told exactly what was stored."""
        stored = self.stored.get((channel, epoch, publication.offset))
        if channel not in CHANNELS:
            return
        told = Stored(publication, tuple(exclude), delta)
        if stored is None or not _is_same(stored, told):
            raise BrokenGuarantee(f"{channel}: announced {publication}, {exclude}, {delta}; stored: {stored}")


def _is_same(stored: Stored, told: Stored) -> bool:
    return stored[1:] == told[1:] and _contents(stored.publication) == _contents(told.publication)


def _contents(publication: Publication) -> tuple[object, ...]:
    info = publication.info
    return bytes(publication.data), publication.tags or {}, None if info is None else (info.client, info.user)


class _Unchanged:
    """Implements `CallInterceptor`. A call that is closed before it starts leaves no other coroutine behind."""

    def call(
        self, name: EngineCall, running: Coroutine[Any, Any, T], *arguments: object, waits_s: float = 0.0
    ) -> Coroutine[Any, Any, T]:
        return running


class RecordingBroker(InterceptedBroker):
    """Records what the broker has stored, in the same step."""

    def __init__(self, streams: HubStreams) -> None:
        super().__init__(streams.engine.broker, _Unchanged())
        self._streams = streams

    async def publish(
        self,
        channel: str,
        data: Raw,
        options: PublishOptions,
        info: ClientInfo | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> PublishOutcome:
        outcome = await self._inner.publish(channel, data, options, info, tags)
        if not outcome.suppressed and channel in CHANNELS:
            position = outcome.position
            self._streams.record(channel, Publication(data, info, position.offset, dict(tags or {})), options, position)
        return outcome


def check_announcements(listener: Any, streams: HubStreams) -> None:
    """Checks each announcement that reaches a worker."""
    on_publication: Callable[..., None] = listener.on_publication

    def check(
        channel: str,
        publication: Publication,
        epoch: str,
        previous: int,
        exclude: Sequence[str],
        delta: bool = False,
    ) -> None:
        streams.check_announcement(channel, publication, epoch, exclude, delta)
        on_publication(channel, publication, epoch, previous, exclude, delta)

    listener.on_publication = check
