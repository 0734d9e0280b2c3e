"""Keeps the new engine equal to the old one: copies all channels once, and then every change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from msgspec.structs import replace

from beaconfire.base.errors import EngineError
from beaconfire.engines.comparison import differences
from beaconfire.engines.migration import Phase, Verification
from beaconfire.engines.mirror.report import Report
from beaconfire.engines.transfer import EXPIRY_TOLERANCE_S, SLICE_CHANNELS, StreamImage, Transfer
from beaconfire.model.events import EventSink, MigrationFailed, MigrationProgressed, report_error
from beaconfire.model.position import StreamPosition

RETRY_S: Final = 0.5
"""How long the replicator waits after a failure of the new engine."""

UNUSED_TTL_S: Final = 300.0
"""How long the engines keep the position of a channel without any publication."""

EXPIRY_LAG: Final = 0.05
"""By which part of its time to live the expiry of a position may be too early in the new engine. Otherwise each read
would have to write there."""

CHANGES_MAX: Final = 4 * SLICE_CHANNELS
"""How many channels with changes are loaded together. A change is a few publications, so this takes as long as a slice
of whole channels."""

CHANGE_LOADS_MAX: Final = 4
"""How often changes are loaded before a slice is copied or verified. So the new engine keeps up with publishing while
all channels are compared, and the comparison goes on under any load."""

SWEPT_CHANNELS_MAX: Final = 1000
"""How many channels one `sweep` looks at."""


class Loaded(NamedTuple):
    """What the new engine has of a channel: the position, the oldest offset, and the expiry of the position."""

    position: StreamPosition
    oldest: int
    expires_s: float


class Replicator:
    """The only writer of the new engine. One task does everything, in slices of channels.

    * **Order.** A channel with a change is *stale* until its newest state was loaded. Each load is a tail of the
      stream, from the position that was loaded before, or the whole stream if that does not fit.
    * **In step.** A channel is in step if it was loaded, is not stale, and no change is under way. Only then, and while
      the new engine has no problem, may it be read.
    * **Verification.** Only this task writes the new engine. So it exports a channel from the old engine, loads what is
      missing of exactly this image, and compares exactly this image: the result is exact under any load.
    * **Failures.** After a failure of the new engine all its channels stay stale, and the task tries again. The old
      engine notices nothing.
    * **Expiry.** Reading prolongs a position only in the old engine, and what has expired there must not stay in the
      new one: so a channel is also stale when its expiry in the new engine is too early, or is over.
    """

    def __init__(
        self, old: Transfer, new: Transfer, unix_s: Callable[[], float], events: EventSink, retry_s: float = RETRY_S
    ) -> None:
        self._old = old
        self._new = new
        self._unix_s = unix_s
        self._events = events
        self._retry_s = retry_s
        self._loaded: dict[str, Loaded] = {}
        """The channels as the new engine has them."""
        self._stale: dict[str, None] = {}
        self._loading: frozenset[str] = frozenset()
        """Channels whose changes are being loaded. `_stale` has those that change again meanwhile."""
        self._changing: dict[str, int] = {}
        """How many changes of the channel are under way in the old engine."""
        self._swept: Iterator[str] = iter(())
        """The channels that `sweep` looks at next."""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._cursor: str | None = ""
        """Where the copy of all channels continues. None: all were copied."""
        self._report: Report | None = None
        """The verification that runs."""
        self.done = 0
        """How many channels are done in this phase."""
        self.total = 0
        """About how many channels this phase has."""
        self.problem = ""
        """Why the new engine cannot be used at present, or empty."""
        self.verification = 0
        """The number of the verification that was started last."""
        self.verified: Verification | None = None
        """The last verification that was finished."""

    # On the event loop

    def start(self) -> None:
        """Starts the task. Both engines are started."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> bool:
        """Loads what is stale, and ends the task. True if the new engine has everything that the old one has.

        Nothing may change in the old engine any more. Cancelling this leaves the new engine unfinished, which is safe.
        """
        task, self._task = self._task, None
        if task is None:
            return False
        task.cancel()
        await asyncio.wait([task])
        try:
            while self._stale and self._cursor is None:
                await self._load_stale()
        except EngineError as error:
            self._fail(error.detail)
        return self._cursor is None and not self._stale

    def remember(self, images: Iterable[StreamImage]) -> None:
        """The new engine has exactly these images of their channels."""
        self._loaded.update((image.channel, _loaded(image)) for image in images)

    def begin_change(self, channel: str) -> None:
        """Before a change of the channel in the old engine."""
        self._changing[channel] = self._changing.get(channel, 0) + 1

    def end_change(self, channel: str) -> None:
        """After a change, whatever its outcome."""
        count = self._changing[channel] - 1
        if count:
            self._changing[channel] = count
        else:
            del self._changing[channel]
        self.mark_stale(channel)

    def mark_stale(self, channel: str) -> None:
        """The new engine may differ from the old one in this channel."""
        self._stale[channel] = None
        self._wake.set()

    def read_failed(self, channel: str, problem: str) -> None:
        """The new engine could not be read. It is not read again before it was written."""
        self._fail(problem)
        self.mark_stale(channel)

    def compare_use(self, channel: str, position: StreamPosition, meta_ttl_s: float) -> None:
        """The old engine has shown this position, and keeps it for `meta_ttl_s`. Also a read creates streams, replaces
        expired ones, and prolongs positions."""
        if channel in self._stale or channel in self._changing or channel in self._loading:
            return
        loaded = self._loaded.get(channel)
        ttl_s = meta_ttl_s if position.offset else min(meta_ttl_s, UNUSED_TTL_S)
        if (
            loaded is None
            or loaded.position != position
            or loaded.expires_s < self._unix_s() + (1 - EXPIRY_LAG) * ttl_s
        ):
            self.mark_stale(channel)

    def loaded_position(self, channel: str) -> StreamPosition | None:
        """The position of a channel that is in step, or None."""
        if self.problem or channel in self._stale or channel in self._changing or channel in self._loading:
            return None
        loaded = self._loaded.get(channel)
        return None if loaded is None else loaded.position

    def sweep(self) -> None:
        """Finds channels that have expired. Those that the old engine has prolonged meanwhile are only loaded again."""
        now_s = self._unix_s()
        channels = list(islice(self._swept, SWEPT_CHANNELS_MAX))
        if not channels:
            self._swept = iter(list(self._loaded))
        for channel in channels:
            loaded = self._loaded.get(channel)
            if loaded is not None and loaded.expires_s <= now_s:
                self.mark_stale(channel)

    def verify(self) -> None:
        """Starts a verification of all channels, after the copy. One that runs begins again."""
        self.verification += 1
        self._report = Report(number=self.verification)
        if self._cursor is None:
            self.done = 0
        self._wake.set()

    @property
    def phase(self) -> Phase:
        if self._cursor is not None:
            return "copying"
        return "following" if self._report is None else "verifying"

    @property
    def waiting(self) -> int:
        """How many channels have changes that the new engine does not have yet."""
        return len(self._stale) + sum(channel not in self._stale for channel in self._loading)

    # The task

    async def _run(self) -> None:
        is_following = False
        while True:
            try:
                if not is_following:
                    await self._new.follow()
                    is_following = True
                await self._step()
            except EngineError as error:
                is_following = False
                self._fail(error.detail)
                await asyncio.sleep(self._retry_s)
            except Exception as error:  # noqa: BLE001 - a defect must not end the task
                is_following = False
                self._fail(f"{type(error).__name__}, see internal_error in the log")
                report_error(self._events, "mirror", error)
                await asyncio.sleep(self._retry_s)

    async def _step(self) -> None:
        """Changes first, then a slice of the other work, or waits until there is work."""
        self._wake.clear()
        for _ in range(CHANGE_LOADS_MAX):
            if not self._stale:
                break
            await self._load_stale()
            self._succeed()
        if self._cursor is not None:
            await self._copy_slice(self._cursor)
            self._succeed()
        elif self._report is not None:
            await self._verify_slice(self._report)
            self._succeed()
        elif not self._stale:
            await self._wake.wait()
        else:
            await asyncio.sleep(0)

    def _fail(self, problem: str) -> None:
        """Emits the first of several failures in a row."""
        if not self.problem:
            self._events.emit(MigrationFailed(problem))
        self.problem = problem

    def _succeed(self) -> None:
        if self.problem:
            self.problem = ""
            self._events.emit(MigrationProgressed("recovered", self.waiting))

    async def _load_stale(self) -> None:
        channels = list(islice(self._stale, CHANGES_MAX))
        tails = {}
        for channel in channels:
            del self._stale[channel]
            loaded = self._loaded.get(channel)
            tails[channel] = 0 if loaded is None else loaded.position.offset
        self._loading = frozenset(channels)
        try:
            images = await self._old.export(tails, self._unix_s())
            await self._load(channels, images)
        except BaseException:
            self._stale.update(dict.fromkeys(channels))
            raise
        finally:
            self._loading = frozenset()

    async def _load(self, channels: Sequence[str], images: Sequence[StreamImage]) -> None:
        """Loads the images of the channels. A channel without an image has nothing in the old engine."""
        refused = await self._new.load(images)
        loaded = {image.channel: image for image in images}
        if refused:
            whole = await self._old.export(dict.fromkeys(refused, 0), self._unix_s())
            for channel in refused:
                del loaded[channel]
            await self._new.load(whole)
            loaded.update((image.channel, image) for image in whole)
        gone = [channel for channel in channels if channel not in loaded]
        if gone:
            await self._new.remove(gone)
            for channel in gone:
                self._loaded.pop(channel, None)
        self.remember(loaded.values())

    async def _copy_slice(self, cursor: str) -> None:
        """Copies channels that differ. So a migration that was interrupted continues where it was."""
        if not cursor:
            self.done, self.total = 0, await self._old.count()
        part = await self._old.channels(cursor, SLICE_CHANNELS)
        channels = [channel for channel in part.channels if channel not in self._loaded]
        at_s = self._unix_s()
        whole = dict.fromkeys(channels, 0)
        olds = {image.channel: image for image in await self._old.export(whole, at_s)}
        news = {image.channel: image for image in await self._new.export(whole, at_s)}
        wrong = [old for channel, old in olds.items() if differences(old, news.get(channel), at_s)]
        if wrong:
            await self._new.load(wrong)
        self.remember(olds.values())
        self.done += len(part.channels)
        if not part.cursor:
            await self._remove_extra(None)
            self._events.emit(MigrationProgressed("copied", self.done))
        self._cursor = part.cursor or None

    async def _remove_extra(self, report: Report | None) -> None:
        """Removes channels that only the new engine has. The report gets those that have not expired."""
        cursor, is_first = "", True
        while cursor or is_first:
            part = await self._new.channels(cursor, SLICE_CHANNELS)
            cursor, is_first = part.cursor, False
            unknown = [channel for channel in part.channels if channel not in self._loaded]
            if not unknown:
                continue
            at_s, whole = self._unix_s(), dict.fromkeys(unknown, 0)
            known = {image.channel for image in await self._old.export(whole, at_s)}
            extra = [channel for channel in unknown if channel not in known]
            if report is not None:
                for image in await self._new.export(dict.fromkeys(extra, 0), at_s):
                    report.add(None, image, at_s)
            if extra:
                await self._new.remove(extra)

    async def _verify_slice(self, report: Report) -> None:
        if not report.cursor:
            self.done, self.total = 0, await self._old.count()
            report.unseen = set(self._loaded)
        part = await self._old.channels(report.cursor, SLICE_CHANNELS)
        at_s = self._unix_s()
        images = await self._old.export(dict.fromkeys(part.channels, 0), at_s)
        behind = [image for image in images if self._is_behind(image)]
        refused = await self._new.load([_tail(image, self._loaded.get(image.channel)) for image in behind])
        self.remember([image for image in behind if image.channel not in refused])
        news = {image.channel: image for image in await self._new.export(dict.fromkeys(part.channels, 0), at_s)}
        if self._report is not report:
            return  # A new verification was started meanwhile.
        for image in images:
            report.unseen.discard(image.channel)
            if report.add(image, news.get(image.channel), at_s):
                self._loaded.pop(image.channel, None)  # The whole channel is copied again.
                self.mark_stale(image.channel)
        self.done += len(part.channels)
        report.cursor = part.cursor
        if not part.cursor:
            for channel in report.unseen:
                self.mark_stale(channel)  # The old engine has dropped it, or had it after it was asked.
            await self._remove_extra(report)
            if self._report is report:
                self._report, self.verified = None, report.result()
                self._events.emit(MigrationProgressed("verified", self.done, report.different))

    def _is_behind(self, image: StreamImage) -> bool:
        """Whether the new engine is known to miss changes that this image has."""
        loaded = self._loaded.get(image.channel)
        if loaded is None or image.channel in self._stale:
            return True
        now = _loaded(image)
        return loaded[:2] != now[:2] or now.expires_s > loaded.expires_s + EXPIRY_TOLERANCE_S


def _loaded(image: StreamImage) -> Loaded:
    if image.has_stream:
        return Loaded(image.position, image.oldest, image.expires_s)
    return Loaded(image.position, image.oldest, max(key.expires_s for key in image.keys))


def _tail(image: StreamImage, loaded: Loaded | None) -> StreamImage:
    """What the whole image has above the position that was loaded before; all of it for another epoch."""
    since = 0 if loaded is None or loaded.position.epoch != image.position.epoch else loaded.position.offset
    if not 0 < since <= image.position.offset:
        return image
    first = next((n for n, each in enumerate(image.publications) if each.offset > since), len(image.publications))
    return replace(
        image,
        since=since,
        publications=image.publications[first:],
        publication_expiries_s=image.publication_expiries_s[first:],
    )
