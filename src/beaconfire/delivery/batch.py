"""What one channel has to say in one turn: its items, and the frames they become, each made once for all who share it.

Most subscribers of a channel get the same frame. A subscription with a `DeliveryStrategy` gets the publications that
its filter selects, or patches, or only the newest publication. Subscriptions with equal selections, or with patches
from the same publications, still share one frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from beaconfire.delivery.patches import Patches
from beaconfire.delivery.tags_filter import TagsFilter
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import JoinPush, LeavePush, PublicationPush
from beaconfire.protocols.port import (
    DeltaCodec,
    Frame,
    Payload,
    Wire,
)

SINGLE_FRAMES_MAX = 16
"""Frames that are kept of one publication that is told by itself. They differ by wire, by patch and by the count of
publications left out, and a publication may be owed for minutes while that count differs for every subscriber. Beyond
it the oldest frame goes, and is made again if somebody else needs it."""


class PatchedPayload(NamedTuple):
    """An encoded publication for one who gets patches, and whether it is one."""

    payload: Payload
    patched: bool


class SingleFrame(NamedTuple):
    """The frame of a publication that is told by itself, and whether it is a patch."""

    frame: Frame
    patched: bool


class Item:
    """One thing to deliver, and its encodings so far.

    `delta` says that its publisher allows patches. `previous` is the publication that everybody in the channel was
    given before this one; it is known only while somebody gets patches.
    """

    __slots__ = ("_patched", "_payloads", "_singles", "delta", "epoch", "exclude", "offset", "previous", "push")

    def __init__(
        self,
        push: PublicationPush | JoinPush | LeavePush,
        offset: int,
        epoch: str,
        exclude: Sequence[str],
        delta: bool = False,
        previous: Publication | None = None,
    ) -> None:
        self.push = push
        self.offset = offset
        self.epoch = epoch
        self.exclude = exclude
        self.delta = delta
        self.previous = previous
        self._payloads: dict[str, Payload] = {}
        self._patched: dict[tuple[str, int], PatchedPayload] | None = None
        self._singles: dict[tuple[Wire, int, int], SingleFrame] | None = None

    @property
    def publication(self) -> Publication:
        """Of an item that is one."""
        assert isinstance(self.push, PublicationPush)
        return self.push.pub

    def payload(self, wire: Wire) -> Payload:
        """Encoded once per codec. Raises PayloadError if this wire cannot express it."""
        codec = wire.codec
        payload = self._payloads.get(codec.name)
        if payload is None:
            payload = self._payloads[codec.name] = codec.encode_push(self.push)
        return payload

    def base_for(self, base: Publication | None, positioned: bool) -> Publication | None:
        """`base`, the last publication a client was given, if this one may be told to it as a patch; else None.

        Either everybody was given `base` last, or it is the neighbour in the stream: `positioned` clients have it from
        this item's epoch.
        """
        if base is None or not self.delta:
            return None
        return base if base is self.previous or (positioned and 0 < base.offset == self.offset - 1) else None

    def patched_payload(
        self, wire: Wire, codec: DeltaCodec, base: Publication | None, patches: Patches
    ) -> PatchedPayload:
        """As `payload`, for those who get patches; `base` comes from `base_for`. Encoded once per codec and base."""
        if self._patched is None:
            self._patched = {}
        # Bases of an item differ in their offsets: one is its neighbour, the other is the same or has none.
        key = (codec.name, -1 if base is None else base.offset)
        with_strategy = self._patched.get(key)
        if with_strategy is None:
            told = patches.express(self.push.channel, self.epoch, self.publication, base, codec)
            payload = wire.codec.encode_push(PublicationPush(self.push.channel, told))
            with_strategy = self._patched[key] = PatchedPayload(payload, told.delta)
        return with_strategy

    def single_frame(
        self, wire: Wire, left_out: int, codec: DeltaCodec | None, base: Publication | None, patches: Patches
    ) -> SingleFrame:
        """The publication in a frame of its own, for one who was not given the `left_out` before it, with codec and
        base as above for one who gets patches. Made once for all who were told the same last, as long as there are at
        most `SINGLE_FRAMES_MAX` different ones. Raises PayloadError."""
        if self._singles is None:
            self._singles = {}
        key = (wire, left_out, -2 if codec is None else -1 if base is None else base.offset)
        single_frame = self._singles.get(key)
        if single_frame is None:
            told = self.publication
            if codec is not None:
                told = patches.express(self.push.channel, self.epoch, told, base, codec)
            if left_out:
                told = replace(told, conflated=left_out)
            payload = wire.codec.encode_push(PublicationPush(self.push.channel, told))
            single_frame = SingleFrame(wire.pack([payload]), told.delta)
            if len(self._singles) >= SINGLE_FRAMES_MAX:
                del self._singles[next(iter(self._singles))]
            self._singles[key] = single_frame
        return single_frame


class Chain(NamedTuple):
    """Items for one who gets patches: their frame, its base from now on, and how many of them are patches."""

    frame: Frame
    base: Publication | None
    patches: int


class Newest(NamedTuple):
    """Publications as they matter to one who wants the newest: that, and how many there are with it.

    `since` is the offset before the first of them that has one, None if none has.
    """

    newest: Item
    size: int
    since: int | None

    @classmethod
    def of(cls, items: Sequence[Item]) -> Newest:
        """Publications in order, at least one."""
        return cls(items[-1], len(items), next((item.offset - 1 for item in items if item.offset), None))


class Batch:
    """The items of one channel in one turn, and their frames per wire."""

    __slots__ = ("_chains", "_news", "_selections", "_verdicts", "epoch", "first", "frames", "items", "last", "uniform")

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.first = items[0].offset
        self.last = items[-1].offset
        self.epoch = items[0].epoch
        if len(items) == 1:  # mostly, and then there is nothing to compare
            self.uniform = not items[0].exclude and type(items[0].push) is PublicationPush
        else:
            self.uniform = all(
                item.offset == (self.first + index if self.first else 0)
                and item.epoch == self.epoch
                and not item.exclude
                and type(item.push) is PublicationPush
                for index, item in enumerate(items)
            )
        self.frames: dict[Wire, Frame] = {}
        self._selections: dict[tuple[Wire, tuple[int, ...]], Frame] = {}
        self._chains: dict[tuple[Wire, tuple[int, ...], int, bool], Chain] = {}
        self._news: dict[tuple[int, ...], tuple[Newest | None, tuple[int, ...]]] = {}
        self._verdicts: dict[TagsFilter | None, tuple[int, ...]] = {}

    def frame(self, wire: Wire) -> Frame:
        """All items in one frame, kept in `frames`. Raises PayloadError."""
        frame = self.frames[wire] = wire.pack([item.payload(wire) for item in self.items])
        return frame

    def selection(self, wire: Wire, indexes: tuple[int, ...]) -> Frame:
        """Some of the items, at least one, in one frame. Raises PayloadError."""
        key = (wire, indexes)
        frame = self._selections.get(key)
        if frame is None:
            frame = self._selections[key] = wire.pack([self.items[index].payload(wire) for index in indexes])
        return frame

    def passing(self, tags_filter: TagsFilter | None) -> tuple[int, ...]:
        """The items that a filter passes; what is no publication always does. Each filter is asked once."""
        verdict = self._verdicts.get(tags_filter)
        if verdict is None:
            verdict = self._verdicts[tags_filter] = tuple(
                index
                for index, item in enumerate(self.items)
                if tags_filter is None
                or not isinstance(item.push, PublicationPush)
                or tags_filter.passes(item.push.pub.tags)
            )
        return verdict

    def news(self, indexes: tuple[int, ...]) -> tuple[Newest | None, tuple[int, ...]]:
        """The publications among these items, and which are something else."""
        split = self._news.get(indexes)
        if split is None:
            publications = [index for index in indexes if isinstance(self.items[index].push, PublicationPush)]
            news = Newest.of([self.items[index] for index in publications]) if publications else None
            split = self._news[indexes] = news, tuple(index for index in indexes if index not in publications)
        return split

    def chain(
        self,
        wire: Wire,
        codec: DeltaCodec,
        indexes: tuple[int, ...],
        base: Publication | None,
        positioned: bool,
        patches: Patches,
    ) -> Chain:
        """As `selection`, for who gets patches and was given `base` last. Raises PayloadError."""
        first = self.items[indexes[0]] if self.uniform else self._first_publication(indexes)
        begin = first.base_for(base, positioned) if first is not None else None
        # From the first publication on everything follows from what is selected.
        key = (wire, indexes, -1 if begin is None else begin.offset, positioned)
        chain = self._chains.get(key) if first is not None else Chain(self.selection(wire, indexes), base, 0)
        if chain is None:
            payloads, told_as_patch = [], 0
            for index in indexes:
                item = self.items[index]
                if isinstance(item.push, PublicationPush):
                    payload, patched = item.patched_payload(wire, codec, item.base_for(base, positioned), patches)
                    payloads.append(payload)
                    told_as_patch += patched
                    base = item.push.pub
                else:
                    payloads.append(item.payload(wire))
            chain = self._chains[key] = Chain(wire.pack(payloads), base, told_as_patch)
        return chain

    def _first_publication(self, indexes: tuple[int, ...]) -> Item | None:
        for index in indexes:
            if isinstance(self.items[index].push, PublicationPush):
                return self.items[index]
        return None
