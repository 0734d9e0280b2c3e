"""Copies all streams of one engine into another one, and verifies the copy.

A copy compares before it writes. So a copy that was interrupted is resumed by running it again: channels that are equal
already are only read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, NamedTuple, Protocol

from msgspec import Struct, field

from beaconfire.engines.comparison import Totals, differences
from beaconfire.engines.migration import Difference
from beaconfire.engines.transfer import SLICE_CHANNELS, StreamImage, Transfer

LISTED_MAX: Final = 1000
"""How many differences a report lists. All are counted."""


class Pair(NamedTuple):
    """The images of a channel in the old and the new engine, for the time `at_s`."""

    channel: str
    old: StreamImage | None
    new: StreamImage | None
    at_s: float

    def differences(self) -> list[Difference]:
        """See `comparison.differences`."""
        return differences(self.old, self.new, self.at_s)


class ProgressListener(Protocol):
    """Is told how far a copy or a verification is."""

    def progress(self, phase: str, channels: int, total: int) -> None:
        """`channels` of about `total` are done in this phase: "copy", "remove" or "verify"."""


class CopyReport(Struct):
    """What a copy did. `removed` are channels that the new engine had and the old one had not."""

    channels: int = 0
    copied: int = 0
    removed: int = 0


class VerificationReport(Struct):
    """What a verification found. `listed` are at most `LISTED_MAX` differences, `different` counts the channels."""

    old: Totals = field(default_factory=Totals)
    new: Totals = field(default_factory=Totals)
    different: int = 0
    listed: list[Difference] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        return self.different == 0

    def add(self, old: StreamImage | None, new: StreamImage | None, at_s: float) -> bool:
        """Adds one channel by its images for the time `at_s`. True if they differ."""
        self.old.add(old)
        self.new.add(new)
        found = differences(old, new, at_s)
        self.different += bool(found)
        self.listed += found[: max(0, LISTED_MAX - len(self.listed))]
        return bool(found)


class StreamCopy:
    """One copy of all streams from `old` to `new`. Both engines are started."""

    def __init__(self, old: Transfer, new: Transfer, unix_s: Callable[[], float], listener: ProgressListener) -> None:
        self._old = old
        self._new = new
        self._unix_s = unix_s
        self._listener = listener

    async def copy(self) -> CopyReport:
        """Makes the new engine keep what the old one keeps: writes channels that differ, removes those that the old one
        does not have."""
        report, total = CopyReport(), await self._old.count()
        async for channels in self._slices(self._old):
            pairs = await self._read(channels)
            wrong = [pair.old for pair in pairs if pair.old is not None and pair.differences()]
            if wrong:
                await self._new.load(wrong)
            report.channels += len(channels)
            report.copied += len(wrong)
            self._listener.progress("copy", report.channels, total)
        seen, total = 0, await self._new.count()
        async for channels in self._slices(self._new):
            extra = await self._only_new(channels)
            if extra:
                await self._new.remove(extra)
            seen += len(channels)
            report.removed += len(extra)
            self._listener.progress("remove", seen, total)
        return report

    async def verify(self) -> VerificationReport:
        """Compares every channel of both engines. A channel that seems to differ is read again, because a publication
        may have come between the two reads."""
        report, total = VerificationReport(), await self._old.count()
        done = 0
        async for channels in self._slices(self._old):
            await self._verify_slice(channels, report)
            done += len(channels)
            self._listener.progress("verify", done, total)
        async for channels in self._slices(self._new):
            extra = await self._only_new(channels)
            if extra:
                await self._verify_slice(extra, report)
        return report

    async def _verify_slice(self, channels: Sequence[str], report: VerificationReport) -> None:
        pairs = await self._read(channels)
        again = {pair.channel for pair in pairs if pair.differences()}
        if again:
            pairs = [pair for pair in pairs if pair.channel not in again] + await self._read(list(again))
        for pair in pairs:
            report.add(pair.old, pair.new, pair.at_s)

    async def _slices(self, engine: Transfer) -> AsyncIterator[Sequence[str]]:
        cursor, is_first = "", True
        while cursor or is_first:
            part = await engine.channels(cursor, SLICE_CHANNELS)
            cursor, is_first = part.cursor, False
            if part.channels:
                yield part.channels

    async def _read(self, channels: Sequence[str]) -> list[Pair]:
        """Both images of each channel, for the same time."""
        whole, at_s = dict.fromkeys(channels, 0), self._unix_s()
        olds = {image.channel: image for image in await self._old.export(whole, at_s)}
        news = {image.channel: image for image in await self._new.export(whole, at_s)}
        return [Pair(channel, olds.get(channel), news.get(channel), at_s) for channel in channels]

    async def _only_new(self, channels: Sequence[str]) -> list[str]:
        """Those channels of which only the new engine has something."""
        return [pair.channel for pair in await self._read(channels) if pair.old is None and pair.new is not None]
