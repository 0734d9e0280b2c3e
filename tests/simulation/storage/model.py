"""What the simulated clients know about the streams, and which answers contradict it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from beaconfire.engines.port import HistoryOptions, HistoryPage
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from tests.simulation.broken_guarantee import BrokenGuarantee


class Attempt(Struct):
    """One publish. `outcome` is empty while there is no answer, or "stored", a reason of suppression, "refused" (it had
    no effect), or "unknown". `position` is that of the answer."""

    channel: str
    payload: bytes
    submitted_s: float
    key: str = ""
    producer: str = ""
    seq: int = 0
    outcome: str = ""
    position: StreamPosition | None = None


class ChannelModel:
    """One channel: what is known to be stored, by offset."""

    def __init__(self, name: str, options: HistoryOptions) -> None:
        self.name = name
        self.options = options
        self.content: dict[int, tuple[bytes, float]] = {}
        """The payload at each known offset, and when it became known."""
        self.epoch = ""
        self.announced = 0
        """The last offset that was announced in this epoch."""
        self.cleared = 0
        """No publication up to this offset may be read."""
        self.maybe_cleared = 0
        """Publications up to this offset may have been removed."""
        self.is_clear_unknown = False
        """Whether a removal was asked for whose effect no page has shown yet."""
        self.clears = 0
        """How many removals were asked for or answered."""
        self.ancestors: list[StreamPosition] = []
        """Positions of earlier epochs that the file shares, one for each copy: the last shared one."""

    def learn(self, offset: int, payload: bytes, now_s: float) -> None:
        """The payload is stored at this offset, for ever."""
        known = self.content.setdefault(offset, (payload, now_s))
        if known[0] != payload:
            raise BrokenGuarantee(f"{self.name}: offset {offset} was {known[0]!r} and is {payload!r}")

    def learn_epoch(self, epoch: str) -> None:
        if self.epoch and epoch != self.epoch:
            raise BrokenGuarantee(f"{self.name}: the epoch changed from {self.epoch} to {epoch} without a reason")
        if any(epoch == ancestor.epoch for ancestor in self.ancestors):
            raise BrokenGuarantee(f"{self.name}: a copy goes on with the epoch of the original")
        self.epoch = epoch

    def check_announcement(self, publication: Publication, epoch: str, previous: int, now_s: float) -> None:
        self.learn_epoch(epoch)
        offset = publication.offset
        if previous != offset - 1 or offset <= self.announced:
            raise BrokenGuarantee(f"{self.name}: {offset} after {self.announced}, previous {previous}")
        self.announced = offset
        self.learn(offset, bytes(publication.data), now_s)

    def check_page(self, page: HistoryPage, since: StreamPosition | None, now_s: float, sees_clears: bool) -> None:
        """A forward page without a limit. `sees_clears` tells whether it was read after all removals so far."""
        self.learn_epoch(page.position.epoch)
        offsets = [publication.offset for publication in page.publications]
        top = page.position.offset
        if offsets and offsets != list(range(offsets[0], top + 1)):
            raise BrokenGuarantee(f"{self.name}: a page with holes, top {top}: {offsets}")
        if top < max(self.content, default=0):
            raise BrokenGuarantee(f"{self.name}: top {top} is below {max(self.content)}, which was acknowledged")
        for publication in page.publications:
            self.learn(publication.offset, bytes(publication.data), now_s)
        self._check_range(offsets, top, since, now_s)
        if self.is_clear_unknown and sees_clears:
            self.is_clear_unknown = False
            self.maybe_cleared = top
        if since is not None:
            self._check_continues(page, since, offsets)

    def _check_range(self, offsets: Sequence[int], top: int, since: StreamPosition | None, now_s: float) -> None:
        lowest = max(top - self.options.size, self.cleared)
        start = 0 if since is None else since.offset
        if offsets and offsets[0] <= max(lowest, start):
            raise BrokenGuarantee(f"{self.name}: {offsets[0]} must not be read, top {top}, cleared {self.cleared}")
        if self.is_clear_unknown:
            return
        for offset in range(max(lowest, start, self.maybe_cleared) + 1, top + 1):
            known = self.content.get(offset)
            if known is not None and now_s < known[1] + self.options.ttl_s - AGE_UNKNOWN_S and offset not in offsets:
                raise BrokenGuarantee(f"{self.name}: {offset} ({known[0]!r}) is missing, top {top}: {offsets}")

    def _check_continues(self, page: HistoryPage, since: StreamPosition, offsets: Sequence[int]) -> None:
        top = page.position.offset
        shared = top if since.epoch == self.epoch else -1
        for ancestor in self.ancestors:
            if ancestor.epoch == since.epoch:
                shared = ancestor.offset
        complete = (bool(offsets) and offsets[0] == since.offset + 1) or since.offset == top
        if page.continues and (since.offset > shared or not complete):
            raise BrokenGuarantee(f"{self.name}: {since} is said to continue in {page.position}, {offsets}")
        if not page.continues and since.offset <= shared and complete:
            raise BrokenGuarantee(f"{self.name}: {since} is said not to continue in {page.position}, {offsets}")

    def fork(self, top: StreamPosition | None, cleared: int) -> None:
        """The file is now a copy, which was made when `top` was the position and everything up to `cleared` was
        removed. `top` is None if the channel had no stream then."""
        self.announced = 0
        if top is None:
            self.content, self.epoch, self.ancestors = {}, "", []
            self.cleared = self.maybe_cleared = 0
            return
        self.content = {offset: known for offset, known in self.content.items() if offset <= top.offset}
        self.ancestors.append(top)
        self.epoch = ""
        self.cleared = cleared
        self.maybe_cleared = top.offset


AGE_UNKNOWN_S = 100.0
"""A publication may have been stored this much earlier than its payload became known: the time of one simulated step
and of a restart."""
