"""The items of one channel in one turn, and their frames, each made once for all subscriptions that share it.

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
from beaconfire.protocols.port import DeltaCodec, Frame, Payload, Wire

SINGLE_FRAMES_MAX = 16
"""Frames that an item keeps for conflated subscriptions. These frames differ by wire, by patch and by the number of
publications that were left out. A publication may be held for minutes while that number differs for each subscription.
If there are more frames, the oldest one is dropped, and made again if another subscription needs it."""


class PatchedPayload(NamedTuple):
    """An encoded publication for a subscription that gets patches. `is_patch` is false if it is sent whole."""

    payload: Payload
    is_patch: bool


class SingleFrame(NamedTuple):
    """The frame of one publication alone. `is_patch` is false if the publication is sent whole."""

    frame: Frame
    is_patch: bool


class Item:
    """One publication, join or leave, and its encodings so far.

    `delta` says that the publisher allows patches. `previous` is the publication before this one in the channel. It is
    known only while a subscription has a strategy.
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
        """The publication. The item must hold one."""
        assert isinstance(self.push, PublicationPush)
        return self.push.pub

    def payload(self, wire: Wire) -> Payload:
        """Encoded once per codec. Raises PayloadError if the codec cannot express the data."""
        codec = wire.codec
        payload = self._payloads.get(codec.name)
        if payload is None:
            payload = self._payloads[codec.name] = codec.encode_push(self.push)
        return payload

    def base_for(self, base: Publication | None, positioned: bool) -> Publication | None:
        """Returns `base` if this publication may be sent as a patch from it, else None.

        `base` is the last publication that the client received. It must be the publication before this one: either
        every subscriber got it, or its offset says so. A `positioned` subscription is in this item's epoch.
        """
        if base is None or not self.delta:
            return None
        return base if base is self.previous or (positioned and 0 < base.offset == self.offset - 1) else None

    def patched_payload(
        self, wire: Wire, codec: DeltaCodec, base: Publication | None, patches: Patches
    ) -> PatchedPayload:
        """Like `payload`, as a patch from `base` if possible. `base` comes from `base_for`.

        Encoded once per codec and base.
        """
        if self._patched is None:
            self._patched = {}
        # The bases of an item differ in their offsets: one has the offset before, the other has none or is the same.
        key = (codec.name, -1 if base is None else base.offset)
        patched = self._patched.get(key)
        if patched is None:
            encoded = patches.encode(self.push.channel, self.epoch, self.publication, base, codec)
            payload = wire.codec.encode_push(PublicationPush(self.push.channel, encoded))
            patched = self._patched[key] = PatchedPayload(payload, encoded.delta)
        return patched

    def single_frame(
        self, wire: Wire, left_out: int, codec: DeltaCodec | None, base: Publication | None, patches: Patches
    ) -> SingleFrame:
        """The publication in a frame of its own, for a conflated subscription.

        `left_out` publications before it were not sent. `codec` and `base` are those of `patched_payload`, and None
        for a subscription without patches. At most `SINGLE_FRAMES_MAX` different frames are kept and shared. Raises
        PayloadError.
        """
        if self._singles is None:
            self._singles = {}
        key = (wire, left_out, -2 if codec is None else -1 if base is None else base.offset)
        single = self._singles.get(key)
        if single is None:
            publication = self.publication
            if codec is not None:
                publication = patches.encode(self.push.channel, self.epoch, publication, base, codec)
            if left_out:
                publication = replace(publication, conflated=left_out)
            payload = wire.codec.encode_push(PublicationPush(self.push.channel, publication))
            single = SingleFrame(wire.pack([payload]), publication.delta)
            if len(self._singles) >= SINGLE_FRAMES_MAX:
                del self._singles[next(iter(self._singles))]
            self._singles[key] = single
        return single


class PatchedFrame(NamedTuple):
    """Items for a subscription with patches: the frame, its base from now on, and the number of patches."""

    frame: Frame
    base: Publication | None
    patches: int


class Newest(NamedTuple):
    """Publications for a conflated subscription: the newest of them, and how many they are.

    `since` is the offset before the first publication that has an offset, None if none has.
    """

    item: Item
    size: int
    since: int | None

    @classmethod
    def of(cls, items: Sequence[Item]) -> Newest:
        """`items` are publications in order, at least one."""
        return cls(items[-1], len(items), next((item.offset - 1 for item in items if item.offset), None))


class Batch:
    """The items of one channel in one turn, and their frames per wire.

    A batch is `uniform` if every subscriber may get all of it: it holds publications only, without excluded clients,
    in one epoch, with offsets that rise by one (or without offsets).
    """

    __slots__ = (
        "_filtered",
        "_newest",
        "_patched",
        "_selections",
        "epoch",
        "first",
        "frames",
        "items",
        "last",
        "uniform",
    )

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.first = items[0].offset
        self.last = items[-1].offset
        self.epoch = items[0].epoch
        if len(items) == 1:  # the usual case, with nothing to compare
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
        self._patched: dict[tuple[Wire, tuple[int, ...], int, bool], PatchedFrame] = {}
        self._newest: dict[tuple[int, ...], tuple[Newest | None, tuple[int, ...]]] = {}
        self._filtered: dict[TagsFilter | None, tuple[int, ...]] = {}

    def frame(self, wire: Wire) -> Frame:
        """All items in one frame, kept in `frames`. Raises PayloadError."""
        frame = self.frames[wire] = wire.pack([item.payload(wire) for item in self.items])
        return frame

    def selection(self, wire: Wire, indexes: tuple[int, ...]) -> Frame:
        """Some items, at least one, in one frame. Raises PayloadError."""
        key = (wire, indexes)
        frame = self._selections.get(key)
        if frame is None:
            frame = self._selections[key] = wire.pack([self.items[index].payload(wire) for index in indexes])
        return frame

    def passing(self, tags_filter: TagsFilter | None) -> tuple[int, ...]:
        """The indexes of the items that pass the filter. Joins and leaves always pass.

        Each filter is applied once. None is no filter.
        """
        passing = self._filtered.get(tags_filter)
        if passing is None:
            passing = self._filtered[tags_filter] = tuple(
                index
                for index, item in enumerate(self.items)
                if tags_filter is None
                or not isinstance(item.push, PublicationPush)
                or tags_filter.passes(item.push.pub.tags)
            )
        return passing

    def newest(self, indexes: tuple[int, ...]) -> tuple[Newest | None, tuple[int, ...]]:
        """The newest publication among these items, and the indexes of the joins and leaves."""
        split = self._newest.get(indexes)
        if split is None:
            publications = [index for index in indexes if isinstance(self.items[index].push, PublicationPush)]
            newest = Newest.of([self.items[index] for index in publications]) if publications else None
            split = self._newest[indexes] = newest, tuple(index for index in indexes if index not in publications)
        return split

    def patched(
        self,
        wire: Wire,
        codec: DeltaCodec,
        indexes: tuple[int, ...],
        base: Publication | None,
        positioned: bool,
        patches: Patches,
    ) -> PatchedFrame:
        """Like `selection`, with patches. `base` is the last publication that the client received.

        Raises PayloadError.
        """
        first = self.items[indexes[0]] if self.uniform else self._first_publication(indexes)
        begin = first.base_for(base, positioned) if first is not None else None
        # The base of the first publication and the selection determine all other bases.
        key = (wire, indexes, -1 if begin is None else begin.offset, positioned)
        patched = self._patched.get(key) if first is not None else PatchedFrame(self.selection(wire, indexes), base, 0)
        if patched is None:
            payloads, patch_count = [], 0
            for index in indexes:
                item = self.items[index]
                if isinstance(item.push, PublicationPush):
                    payload, is_patch = item.patched_payload(wire, codec, item.base_for(base, positioned), patches)
                    payloads.append(payload)
                    patch_count += is_patch
                    base = item.push.pub
                else:
                    payloads.append(item.payload(wire))
            patched = self._patched[key] = PatchedFrame(wire.pack(payloads), base, patch_count)
        return patched

    def _first_publication(self, indexes: tuple[int, ...]) -> Item | None:
        for index in indexes:
            if isinstance(self.items[index].push, PublicationPush):
                return self.items[index]
        return None
