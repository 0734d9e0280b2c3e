"""Every publication, as a patch if the client has the publication that the patch starts from. See `patches`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from beaconfire.delivery.batch import Batch
from beaconfire.delivery.item import Item
from beaconfire.delivery.strategy import DeliveryStrategy, StrategyContext, Target
from beaconfire.model.publication import Publication
from beaconfire.model.pushes import PublicationPush
from beaconfire.protocols.port import DeltaCodec, Frame, Payload, Wire


class PatchedPayload(NamedTuple):
    """An encoded publication. `is_patch` is false if it is sent whole."""

    payload: Payload
    is_patch: bool


class PatchedFrame(NamedTuple):
    """Items of a batch: their frame, the base of the client from now on, and the number of patches."""

    frame: Frame
    base: Publication | None
    patches: int


class Patched(DeliveryStrategy):
    """`base` is the last publication that was sent to the client. The next patch may start from it."""

    __slots__ = ("_codec", "_context", "base")

    def __init__(self, codec: DeltaCodec, context: StrategyContext) -> None:
        """`codec` is the codec of the session."""
        self._codec = codec
        self._context = context
        self.base: Publication | None = None

    @property
    def has_patches(self) -> bool:
        return True

    def deliver(self, batch: Batch, indexes: tuple[int, ...], target: Target) -> int:
        patched = self._frame(batch, indexes, target.wire, target.is_positioned)
        self.base = patched.base
        self._context.patches_total += patched.patches
        target.outbox.append(patched.frame)
        return len(indexes)

    def deliver_update(self, item: Item, left_out: int, target: Target) -> int:
        base = item.base_for(self.base, target.is_positioned)
        single = item.single_frame(
            target.wire, left_out, -1 if base is None else base.offset, lambda: self._encode(item, base)
        )
        self.base = item.publication
        self._context.patches_total += single.is_patch
        target.outbox.append(single.frame)
        return 1

    def encode(self, channel: str, epoch: str, publications: Sequence[Publication]) -> Sequence[Publication]:
        if not publications:
            return publications
        base, self.base = self.base, publications[-1]
        return self._context.patches.encode_all(channel, epoch, publications, base, self._codec)

    def _frame(self, batch: Batch, indexes: tuple[int, ...], wire: Wire, positioned: bool) -> PatchedFrame:
        """Made once for all subscriptions with the same selection and the same base. Raises PayloadError."""
        first = _first_publication(batch, indexes)
        if first is None:
            return PatchedFrame(batch.selection(wire, indexes), self.base, 0)
        begin = first.base_for(self.base, positioned)
        # The base of the first publication and the selection determine all other bases.
        key = (Patched, wire, indexes, -1 if begin is None else begin.offset, positioned)
        patched: PatchedFrame | None = batch.shared.get(key)
        if patched is None:
            base, payloads, patches = self.base, [], 0
            for item in map(batch.items.__getitem__, indexes):
                if isinstance(item.push, PublicationPush):
                    payload, is_patch = self._payload(item, wire, item.base_for(base, positioned))
                    payloads.append(payload)
                    patches += is_patch
                    base = item.push.pub
                else:
                    payloads.append(item.payload(wire))
            patched = batch.shared[key] = PatchedFrame(wire.pack(payloads), base, patches)
        return patched

    def _payload(self, item: Item, wire: Wire, base: Publication | None) -> PatchedPayload:
        """The publication as a patch from `base` if possible. `base` comes from `Item.base_for`.

        Encoded once per codec and base. Raises PayloadError.
        """
        # The bases of an item differ in their offsets: one has the offset before, the other has none or is the same.
        key = (Patched, self._codec.name, -1 if base is None else base.offset)
        patched: PatchedPayload | None = item.shared.get(key)
        if patched is None:
            encoded = self._encode(item, base)
            payload = wire.codec.encode_push(PublicationPush(item.push.channel, encoded))
            patched = item.shared[key] = PatchedPayload(payload, encoded.delta)
        return patched

    def _encode(self, item: Item, base: Publication | None) -> Publication:
        return self._context.patches.encode(item.push.channel, item.epoch, item.publication, base, self._codec)


def _first_publication(batch: Batch, indexes: tuple[int, ...]) -> Item | None:
    for index in indexes:
        item = batch.items[index]
        if isinstance(item.push, PublicationPush):
            return item
    return None
