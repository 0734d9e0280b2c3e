"""The stream of revocations, with which every node learns which tokens are void.

A revocation is a publication in an internal channel that no client and no API call can name, with the best durability
that the engine offers. A node attaches the channel, and then reads the whole stream. Announcements that come meanwhile
are taken at once, because the order of revocations has no meaning. After the link was lost, and after an announcement
whose predecessor has not come, the node attaches and reads again. Until it has, it accepts no token.

The stream keeps a limited number of the newest publications, and a revocation must not leave the stream before it ends.
So each call of `revoke` also publishes the oldest revocations again when the stream has become long. If the stream is
twice as long as the number of revocations may be, at least half of it are revocations that have ended or were repeated,
so the stream soon becomes shorter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import Raw

from beaconfire.base.backoff import Backoff
from beaconfire.base.errors import LIMIT_EXCEEDED, CommandError
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timer, Timers
from beaconfire.engines.port import Durability, Engine, HistoryOptions, PublishOptions
from beaconfire.model.events import EventSink, LimitHit, report_error
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.session.revocations import LIFETIME_MAX_S, Revocation, Revocations

REPEAT_FROM: Final = 2
"""The length of the stream from which on the oldest revocations are published again, in limits of revocations."""

REPEATED_PER_CALL: Final = 2
LENGTH_MAX: Final = 3
"""The length of the stream at which the engine drops publications, in limits of revocations. The stream never becomes
so long: beyond `REPEAT_FROM` it grows by at most one per call, for at most half as many calls as there are
revocations."""

PAGE_MAX: Final = 1000
"""Publications of one read: a few milliseconds."""

ENDED_INTERVAL_S: Final = 60.0
"""How often the memory of ended revocations is freed."""

_BEST: Final[tuple[Durability, ...]] = ("replicated", "disk", "memory")


class RevocationStream:
    """Learns the revocations of all nodes, and publishes new ones."""

    def __init__(
        self,
        channel: str,
        engine: Engine,
        revocations: Revocations,
        enforce: Callable[[Revocation], None],
        background: BackgroundTasks,
        timers: Timers,
        backoff: Backoff,
        events: EventSink,
    ) -> None:
        """`channel` is the internal channel. `enforce` ends what a new revocation makes void, and does not suspend."""
        self.channel = channel
        self._broker = engine.broker
        self._revocations = revocations
        self._enforce = enforce
        self._background = background
        self._timers = timers
        self._backoff = backoff
        self._events = events
        durability = next(name for name in _BEST if name in engine.durabilities)
        self._history = HistoryOptions(LENGTH_MAX * revocations.limit, LIFETIME_MAX_S, LIFETIME_MAX_S, durability)
        self._decoder = msgspec.msgpack.Decoder(Revocation)
        self._position: StreamPosition | None = None
        """Every publication up to here was taken. None before the first one was read."""
        self._is_learning = False
        self._must_repeat = False
        """The link was lost since the learning began."""
        self._failures = 0
        self._timer: Timer | None = None
        self._sweep: Timer | None = None
        self._is_stopped = False
        self._known: asyncio.Future[None] | None = None
        """Somebody waits until the revocations are known."""

    def start(self) -> None:
        """Starts to learn the revocations. They are known when this returns if the engine does not suspend."""
        self._revocations.are_known = False
        self._start_learning()

    async def wait_until_known(self, timeout_s: float) -> None:
        """Returns when the revocations are known, or after `timeout_s` seconds."""
        if not self._revocations.are_known:
            self._known = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._known], timeout=timeout_s)
            self._known = None

    def stop(self) -> None:
        """No call of the engine starts any more."""
        self._is_stopped = True
        for timer in (self._timer, self._sweep):
            if timer is not None:
                timer.cancel()

    # From the server API

    async def revoke(self, revocation: Revocation) -> None:
        """Makes tokens void on all nodes. Idempotent, so a failed call may be repeated.

        Raises CommandError 106 if `Revocations.limit` revocations are kept already, and what the engine raises.
        """
        revocations = self._revocations
        if revocations.is_full_for(revocation.key):
            revocations.remove_ended()
        if revocations.is_full_for(revocation.key):
            self._events.emit(LimitHit("revocations_max", ""))
            raise CommandError(
                LIMIT_EXCEEDED,
                f"{revocations.limit} revocations are kept already: wait until some have ended, and give new ones an "
                "earlier expire_at",
            )
        for _ in range(REPEATED_PER_CALL):
            await self._repeat_oldest()
        await self._publish(revocation)

    async def _repeat_oldest(self) -> None:
        oldest, position = self._revocations.oldest(), self._position
        if oldest is None or position is None:
            return
        offset, revocation = oldest
        if position.offset - offset >= REPEAT_FROM * self._revocations.limit:
            await self._publish(revocation)

    async def _publish(self, revocation: Revocation) -> None:
        data = Raw(msgspec.msgpack.encode(revocation))
        outcome = await self._broker.publish(self.channel, data, PublishOptions(self._history))
        self._take(revocation, outcome.position.offset)  # the announcement may come later

    # From the broker

    def on_publication(self, channel: str, publication: Publication, epoch: str, previous: int) -> None:
        """A publication in a channel without subscribers on this node."""
        if channel != self.channel:
            return
        self._take_publication(publication)
        position = self._position
        if self._is_learning or position is None:
            return
        if epoch != position.epoch or previous > position.offset:
            self._revocations.are_known = False
            self._start_learning()
        elif publication.offset > position.offset:
            self._position = StreamPosition(publication.offset, epoch)

    def on_link_down(self, channels: Sequence[str] | None) -> None:
        """See `BrokerEvents.on_link_down`."""
        if channels is None or self.channel in channels:
            self._revocations.are_known = False
            self._must_repeat = True

    def on_link_up(self, channels: Sequence[str] | None) -> None:
        """See `BrokerEvents.on_link_up`."""
        if channels is None or self.channel in channels:
            self._start_learning()

    # Learning

    def _start_learning(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._must_repeat = True
        if not self._is_learning and not self._is_stopped:
            self._is_learning = True
            self._background.start_engine_work(self._learn())

    async def _learn(self) -> None:
        try:
            self._must_repeat = True
            while self._must_repeat:
                self._must_repeat = False
                await self._broker.attach([self.channel])
                await self._read()
        except Exception as error:  # noqa: BLE001 - reported; the learning is repeated
            report_error(self._events, "revocations", error)
            self._failures += 1
            if not self._is_stopped:
                self._timer = self._timers.after(self._backoff.delay_s(self._failures), self._start_learning)
        else:
            self._failures = 0
            self._revocations.are_known = True
            if self._known is not None and not self._known.done():
                self._known.set_result(None)
        finally:
            self._is_learning = False

    async def _read(self) -> None:
        """Reads the stream from the position up to its top."""
        while True:
            page = await self._broker.history(self.channel, self._history, PAGE_MAX, self._position)
            if self._position is not None and not page.continues:
                self._position = None
                continue
            for publication in page.publications:
                self._take_publication(publication)
            end = page.publications[-1].offset if page.publications else page.position.offset
            self._position = StreamPosition(end, page.position.epoch)
            if end >= page.position.offset:
                return

    def _take_publication(self, publication: Publication) -> None:
        try:
            revocation = self._decoder.decode(publication.data)
        except msgspec.DecodeError as error:
            report_error(self._events, "revocations", error)
        else:
            self._take(revocation, publication.offset)

    def _take(self, revocation: Revocation, offset: int) -> None:
        if self._revocations.add(revocation, offset):
            self._enforce(revocation)
        self._sweep_later()

    # Time

    def _sweep_later(self) -> None:
        if self._sweep is None and len(self._revocations) and not self._is_stopped:
            self._sweep = self._timers.after(ENDED_INTERVAL_S, self._remove_ended)

    def _remove_ended(self) -> None:
        self._sweep = None
        self._revocations.remove_ended()
        self._sweep_later()
