"""What a channel hands out: publications, joins and leaves, each with its encodings, and marks of gaps."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import JoinPush, LeavePush, PublicationPush
from beaconfire.protocols.port import Frame, Payload, Wire

SINGLE_FRAMES_MAX = 16
"""Frames that an item keeps for conflated subscriptions. These frames differ by wire, by patch and by the number of
publications that were left out. A publication may be held for minutes while that number differs for each subscription.
If there are more frames, the oldest one is dropped, and made again if another subscription needs it."""

WHOLE = -2
"""The base of a publication in the form in which it was published. See `Item.single_frame`."""


class GapMark(Struct, frozen=True):
    """Publications of the channel are missing from here on. Subscriptions with a position must recover, unless they
    have reached `kept`, live or with a piece of their recovery."""

    channel: str
    reason: str
    kept: StreamPosition | None = None


Push: TypeAlias = PublicationPush | JoinPush | LeavePush | GapMark


class SingleFrame(NamedTuple):
    """The frame of one publication alone. `is_patch` is false if the publication is sent whole."""

    frame: Frame
    is_patch: bool


class Item:
    """One publication, join, leave or mark of a gap, and its encodings so far.

    `offset` is 0 for everything that is not stored in the stream of the channel. `previous` is the offset of the
    publication before this one in the stream, 0 for the first one; it has no meaning if `offset` is 0.
    `delta` says that the publisher allows patches. `predecessor` is the publication before this one in the channel. It
    is known only while a subscription needs it. Subscriptions with a number above `number_max` joined later and do not
    get the item.
    """

    __slots__ = (
        "_payloads",
        "_shared",
        "_singles",
        "delta",
        "epoch",
        "exclude",
        "number_max",
        "offset",
        "predecessor",
        "previous",
        "push",
    )

    def __init__(
        self,
        push: Push,
        offset: int,
        previous: int,
        epoch: str,
        exclude: Sequence[str],
        number_max: int,
        delta: bool = False,
        predecessor: Publication | None = None,
    ) -> None:
        self.push = push
        self.offset = offset
        self.previous = previous
        self.epoch = epoch
        self.exclude = exclude
        self.number_max = number_max
        self.delta = delta
        self.predecessor = predecessor
        self._payloads: dict[str, Payload] = {}
        self._shared: dict[Hashable, Any] | None = None
        self._singles: dict[tuple[Wire, int, int], SingleFrame] | None = None

    @property
    def publication(self) -> Publication:
        """The publication. The item must hold one."""
        assert isinstance(self.push, PublicationPush)
        return self.push.pub

    @property
    def shared(self) -> dict[Hashable, Any]:
        """Results that delivery strategies compute once for all their subscriptions. The class of the strategy is part
        of each key."""
        if self._shared is None:
            self._shared = {}
        return self._shared

    def payload(self, wire: Wire) -> Payload:
        """Encoded once per codec. Raises PayloadError if the codec cannot express the data."""
        codec = wire.codec
        payload = self._payloads.get(codec.name)
        if payload is None:
            push = self.push
            assert not isinstance(push, GapMark), "a mark is not sent"
            payload = self._payloads[codec.name] = codec.encode_push(push)
        return payload

    def base_for(self, base: Publication | None, positioned: bool) -> Publication | None:
        """Returns `base` if this publication may be sent as a patch from it, else None.

        `base` is the last publication that the client received. It must be the publication before this one: either
        every subscriber got it, or its offset says so. A `positioned` subscription is in this item's epoch.
        """
        if base is None or not self.delta:
            return None
        return base if base is self.predecessor or (positioned and 0 < base.offset == self.previous) else None

    def single_frame(
        self, wire: Wire, left_out: int, base: int, encode: Callable[[], Publication] | None = None
    ) -> SingleFrame:
        """The publication in a frame of its own. `left_out` publications before it were not sent.

        `encode` returns the publication in another form, and `base` is a number for this form: the offset of the
        publication that a patch starts from, -1 for a whole publication next to patches. At most `SINGLE_FRAMES_MAX`
        different frames are kept and shared. Raises PayloadError.
        """
        if self._singles is None:
            self._singles = {}
        key = (wire, left_out, base)
        single = self._singles.get(key)
        if single is None:
            publication = self.publication if encode is None else encode()
            if left_out:
                publication = replace(publication, conflated=left_out)
            payload = wire.codec.encode_push(PublicationPush(self.push.channel, publication))
            single = SingleFrame(wire.pack([payload]), publication.delta)
            if len(self._singles) >= SINGLE_FRAMES_MAX:
                del self._singles[next(iter(self._singles))]
            self._singles[key] = single
        return single
