"""Publications as patches, for subscriptions whose client keeps the last publication and needs only the difference.

The client's *base* is the last publication that it received, whole or as a patch. A patch may be sent only to a client
with exactly the base that the patch starts from. A client with another base or none gets the publication whole, and
that publication is its base from then on. Patches between two publications of a stream are kept for a while: a thousand
clients that come back after a network failure have all missed the same publications.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Raw
from msgspec.structs import replace

from beaconfire.model.publication import Publication
from beaconfire.protocols.fossil import create
from beaconfire.protocols.port import DeltaCodec

FOSSIL: Final = "fossil"
"""The only type of deltas."""

PATCH_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes of patches that are kept. The oldest patches are dropped first, and made again if they are needed."""

COMPARED_BYTES_MAX: Final = 256 * 1024
"""Bytes of text, old and new together, that are compared for one recovery, or for one batch of a channel: about 5 ms.
Publications beyond the limit are sent whole, which is as correct."""

_ENTRY_BYTES = 256
"""Roughly what a kept patch costs in addition to its bytes."""


class Patches:
    """Makes patches, and keeps those between publications of a stream."""

    def __init__(self, bytes_max: int = PATCH_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._known: dict[tuple[str, str, int, int, str], bytes | None] = {}
        self._budget = COMPARED_BYTES_MAX
        self.bytes = 0

    def refill(self) -> None:
        """Starts a new piece of work, for which `COMPARED_BYTES_MAX` may be compared."""
        self._budget = COMPARED_BYTES_MAX

    def encode(
        self, channel: str, epoch: str, publication: Publication, base: Publication | None, codec: DeltaCodec
    ) -> Publication:
        """The publication for a client with this base: as a patch if there is one, else whole.

        `base` must be the publication that the client received last, or None. Raises PayloadError.
        """
        text = codec.delta_text(publication.data)
        if base is not None:
            patch = self._patch(channel, epoch, publication, base, codec, text)
            data = codec.delta_data(patch) if patch is not None else None
            if data is not None:
                return replace(publication, data=data, delta=True)
        data = codec.delta_data(bytes(text))
        assert data is not None, "a whole publication can always be expressed"
        return replace(publication, data=data)

    def encode_all(
        self,
        channel: str,
        epoch: str,
        publications: Iterable[Publication],
        base: Publication | None,
        codec: DeltaCodec,
    ) -> list[Publication]:
        """Publications of one stream for a client that gets them in this order: as patches between neighbours.

        Raises PayloadError.
        """
        self.refill()
        encoded = []
        for publication in publications:
            follows = base is not None and 0 < base.offset == publication.offset - 1
            encoded.append(self.encode(channel, epoch, publication, base if follows else None, codec))
            base = publication
        return encoded

    def _patch(
        self, channel: str, epoch: str, publication: Publication, base: Publication, codec: DeltaCodec, text: Raw
    ) -> bytes | None:
        source = codec.delta_text(base.data)
        if not epoch or base.offset == 0:
            return self._make(source, text)  # not publications of one stream, so no other client needs this patch
        # Most codecs use most texts as they are, and then share the patch.
        own = "" if text is publication.data and source is base.data else codec.name
        key = (channel, epoch, base.offset, publication.offset, own)
        try:
            return self._known[key]
        except KeyError:
            if self._budget <= 0:
                return None
            patch = self._known[key] = self._make(source, text)
            self.bytes += _ENTRY_BYTES + len(patch or b"")
            while self.bytes > self._bytes_max:
                dropped = self._known.pop(next(iter(self._known)))
                self.bytes -= _ENTRY_BYTES + len(dropped or b"")
            return patch

    def _make(self, source: Raw, target: Raw) -> bytes | None:
        if self._budget <= 0:
            return None
        self._budget -= len(source) + len(target)
        return create(bytes(source), bytes(target))
