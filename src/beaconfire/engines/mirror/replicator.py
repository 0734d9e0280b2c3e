"""Keeps the new engine equal to the old one: copies all channels once, and then every change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from beaconfire.base.errors import EngineError
from beaconfire.engines.comparison import Difference, differences
from beaconfire.engines.copying import LISTED_MAX, VerificationReport
from beaconfire.engines.transfer import SLICE_CHANNELS, StreamImage, Transfer
from beaconfire.model.events import EventSink, report_error
from beaconfire.model.position import StreamPosition

RETRY_S: Final = 0.5
"""How long the replicator waits after a failure of the new engine."""

Phase: TypeAlias = Literal["copying", "following", "verifying"]


class MirrorStatus(Struct, frozen=True):
    """How far a migration is. `problem` is why the new engine cannot be written at present, or empty.

    `channels` of about `total` are done in this phase. `waiting` channels have changes that the new engine does not
    have yet. `verified` is the result of the last verification that was finished.
    """

    phase: Phase
    channels: int
    total: int
    waiting: int
    read_percent: float
    problem: str
    verified: VerificationReport | None = None


class Replicator:
    """The only writer of the new engine. One task does everything, in slices of channels.

    * **Order.** A channel with a change is *stale* until its newest state was loaded. Each load is a tail of the
      stream, from the position that was loaded before, or the whole stream if that does not fit.
    * **In step.** A channel is in step if it was loaded, is not stale, and no change is under way. Only then may the
      new engine be read.
    * **Verification.** Only this task writes the new engine. So it exports a channel from the old engine, loads what is
      missing of exactly this image, and compares exactly this image: the result is exact under any load.
    * **Failures.** After a failure of the new engine all its channels stay stale, and the task tries again. The old
      engine notices nothing.
    """

    def __init__(
        self, old: Transfer, new: Transfer, unix_s: Callable[[], float], events: EventSink, retry_s: float = RETRY_S
    ) -> None:
        self._old = old
        self._new = new
        self._unix_s = unix_s
        self._events = events
        self._retry_s = retry_s
        self._loaded: dict[str, StreamPosition] = {}
        """The positions of the channels as the new engine has them."""
        self._stale: dict[str, None] = {}
        self._loading: frozenset[str] = frozenset()
        """Channels whose changes are being loaded. `_stale` has those that change again meanwhile."""
        self._changing: dict[str, int] = {}
        """How many changes of the channel are under way in the old engine."""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._cursor: str | None = ""
        """Where the copy of all channels continues. None: all were copied."""
        self._report: VerificationReport | None = None
        """The verification that runs."""
        self._verify_cursor = ""
        self._done = 0
        self._total = 0
        self._problem = ""
        self.verified: VerificationReport | None = None
        """The last verification that was finished."""
        self.on_verified: Callable[[VerificationReport], None] = lambda report: None

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
            self._problem = error.detail
        return self._cursor is None and not self._stale

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

    def compare_position(self, channel: str, position: StreamPosition) -> None:
        """The old engine has shown this position. Also a read creates streams, and replaces expired ones."""
        if self._loaded.get(channel) != position and channel not in self._changing and channel not in self._loading:
            self.mark_stale(channel)

    def loaded_position(self, channel: str) -> StreamPosition | None:
        """The position of a channel that is in step, or None."""
        if channel in self._stale or channel in self._changing or channel in self._loading:
            return None
        return self._loaded.get(channel)

    def verify(self) -> None:
        """Starts a verification of all channels, after the copy. One that runs begins again."""
        self._report = VerificationReport()
        self._verify_cursor = ""
        if self._cursor is None:
            self._done = 0
        self._wake.set()

    def status(self, read_percent: float) -> MirrorStatus:
        phase: Phase = "following"
        if self._cursor is not None:
            phase = "copying"
        elif self._report is not None:
            phase = "verifying"
        return MirrorStatus(
            phase,
            self._done,
            self._total,
            len(self._stale.keys() | self._loading),
            read_percent,
            self._problem,
            self.verified,
        )

    # The task

    async def _run(self) -> None:
        is_following = False
        while True:
            try:
                if not is_following:
                    await self._new.follow()
                    is_following = True
                await self._step()
                self._problem = ""
            except EngineError as error:
                self._problem, is_following = error.detail, False
                await asyncio.sleep(self._retry_s)
            except Exception as error:  # noqa: BLE001 - a defect must not end the task
                self._problem, is_following = f"{type(error).__name__}, see internal_error in the log", False
                report_error(self._events, "mirror", error)
                await asyncio.sleep(self._retry_s)

    async def _step(self) -> None:
        """One slice of each kind of work, or waits until there is work."""
        self._wake.clear()
        if self._stale:
            await self._load_stale()
            self._problem = ""
        if self._cursor is not None:
            await self._copy_slice(self._cursor)
        elif self._report is not None:
            await self._verify_slice(self._report)
        elif not self._stale:
            await self._wake.wait()
        else:
            await asyncio.sleep(0)

    async def _load_stale(self) -> None:
        channels = list(islice(self._stale, SLICE_CHANNELS))
        tails = {}
        for channel in channels:
            del self._stale[channel]
            tails[channel] = self._loaded[channel].offset if channel in self._loaded else 0
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
        loaded = {image.channel: image.position for image in images}
        if refused:
            whole = await self._old.export(dict.fromkeys(refused, 0), self._unix_s())
            for channel in refused:
                del loaded[channel]
            await self._new.load(whole)
            loaded.update((image.channel, image.position) for image in whole)
        gone = [channel for channel in channels if channel not in loaded]
        if gone:
            await self._new.remove(gone)
            for channel in gone:
                self._loaded.pop(channel, None)
        self._loaded.update(loaded)

    async def _copy_slice(self, cursor: str) -> None:
        """Copies channels that differ. So a migration that was interrupted continues where it was."""
        if not cursor:
            self._done, self._total = 0, await self._old.count()
        part = await self._old.channels(cursor, SLICE_CHANNELS)
        channels = [channel for channel in part.channels if channel not in self._loaded]
        at_s = self._unix_s()
        whole = dict.fromkeys(channels, 0)
        olds = {image.channel: image for image in await self._old.export(whole, at_s)}
        news = {image.channel: image for image in await self._new.export(whole, at_s)}
        wrong = [old for channel, old in olds.items() if differences(old, news.get(channel), at_s)]
        if wrong:
            await self._new.load(wrong)
        self._loaded.update((channel, image.position) for channel, image in olds.items())
        self._done += len(part.channels)
        self._cursor = part.cursor or None
        if self._cursor is None:
            await self._remove_extra()

    async def _remove_extra(self, report: VerificationReport | None = None) -> list[str]:
        """Removes channels that only the new engine has, and returns them. The report counts them."""
        removed: list[str] = []
        cursor, is_first = "", True
        while cursor or is_first:
            part = await self._new.channels(cursor, SLICE_CHANNELS)
            cursor, is_first = part.cursor, False
            unknown = [channel for channel in part.channels if channel not in self._loaded]
            known = {image.channel for image in await self._old.export(dict.fromkeys(unknown, 0), self._unix_s())}
            extra = [channel for channel in unknown if channel not in known]
            if not extra:
                continue
            if report is not None:
                for image in await self._new.export(dict.fromkeys(extra, 0), self._unix_s()):
                    report.new.add(image)
            await self._new.remove(extra)
            removed += extra
        return removed

    async def _verify_slice(self, report: VerificationReport) -> None:
        if not self._verify_cursor:
            self._done, self._total = 0, await self._old.count()
        part = await self._old.channels(self._verify_cursor, SLICE_CHANNELS)
        found, at_s = {}, self._unix_s()
        images = await self._old.export(dict.fromkeys(part.channels, 0), at_s)
        behind = [image for image in images if self._is_behind(image)]
        refused = await self._new.load([_tail(image, self._loaded.get(image.channel)) for image in behind])
        self._loaded.update((image.channel, image.position) for image in behind if image.channel not in refused)
        news = {image.channel: image for image in await self._new.export(dict.fromkeys(part.channels, 0), at_s)}
        for image in images:
            found[image.channel] = differences(image, news.get(image.channel), at_s)
            report.old.add(image)
            report.new.add(news.get(image.channel))
        if self._report is not report:
            return  # A new verification was started meanwhile.
        self._add(report, found)
        self._done += len(part.channels)
        self._verify_cursor = part.cursor
        if not part.cursor:
            extra = await self._remove_extra(report)
            self._add(report, {channel: [Difference(channel, "the old engine has nothing of it")] for channel in extra})
            self._report, self.verified = None, report
            self.on_verified(report)

    def _is_behind(self, image: StreamImage) -> bool:
        """Whether the new engine is known to miss changes that this image has."""
        return image.channel in self._stale or self._loaded.get(image.channel) != image.position

    def _add(self, report: VerificationReport, found: dict[str, list[Difference]]) -> None:
        """Adds differences to the report. Their channels are copied again, as a whole."""
        for channel, each in found.items():
            if each:
                report.different += 1
                report.listed += each[: max(0, LISTED_MAX - len(report.listed))]
                self._loaded.pop(channel, None)
                self.mark_stale(channel)


def _tail(image: StreamImage, loaded: StreamPosition | None) -> StreamImage:
    """What the whole image has above the position that was loaded before; all of it for another epoch."""
    since = 0 if loaded is None or loaded.epoch != image.position.epoch else loaded.offset
    if not 0 < since <= image.position.offset:
        return image
    first = next((n for n, each in enumerate(image.publications) if each.offset > since), len(image.publications))
    return replace(
        image,
        since=since,
        publications=image.publications[first:],
        publication_expiries_s=image.publication_expiries_s[first:],
    )
