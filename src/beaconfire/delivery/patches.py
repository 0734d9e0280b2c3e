"""Publications as patches: for subscribers that keep the last one they got and ask to be told only what changed.

The client's *base* is the last publication it was given, whole or put together. So a patch may be sent only to who
has exactly the base it starts from, and whoever has none, or another one, is given the publication whole and has a
base from then on. Patches between neighbours of a stream are remembered for a while: a thousand clients that come
back after a cut have all missed the same publications.
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
"""The one type of deltas there is."""

PATCH_BYTES_MAX: Final = 4 * 1024 * 1024
"""Patches that are remembered. The oldest give way; then they are made anew."""

COMPARED_BYTES_MAX: Final = 256 * 1024
"""How much text, old and new together, is compared for one recovery or for what one channel has to say in one turn:
about 5 ms. What exceeds it is told whole, which is as correct."""

_ENTRY_BYTES = 256
"""What remembering costs beside the patch, roughly."""


class Patches:
    """Makes patches, those between neighbours of a stream once for everybody."""

    def __init__(self, bytes_max: int = PATCH_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._known: dict[tuple[str, str, int, str], bytes | None] = {}
        self._budget = COMPARED_BYTES_MAX
        self.bytes = 0

    def refill(self) -> None:
        """A new piece of work begins: as much as `COMPARED_BYTES_MAX` may be compared for it."""
        self._budget = COMPARED_BYTES_MAX

    def express(
        self, channel: str, epoch: str, publication: Publication, base: Publication | None, codec: DeltaCodec
    ) -> Publication:
        """The publication as it is told to a client with this base: as a patch if there is one, else whole.

        `base` must be the publication that the client was given last, or None. Raises PayloadError.
        """
        text = codec.delta_text(publication.data)
        if base is not None:
            patch = self._patch(channel, epoch, publication, base, codec, text)
            data = codec.delta_data(patch) if patch is not None else None
            if data is not None:
                return replace(publication, data=data, delta=True)
        data = codec.delta_data(bytes(text))
        assert data is not None, "whole publications can always be expressed"
        return replace(publication, data=data)

    def express_all(
        self,
        channel: str,
        epoch: str,
        publications: Iterable[Publication],
        base: Publication | None,
        codec: DeltaCodec,
    ) -> list[Publication]:
        """A row of a stream's publications, given to a client one after the other: as patches where nothing is missing
        between them. Raises PayloadError."""
        self.refill()
        expressed = []
        for publication in publications:
            follows = base is not None and 0 < base.offset == publication.offset - 1
            expressed.append(self.express(channel, epoch, publication, base if follows else None, codec))
            base = publication
        return expressed

    def _patch(
        self, channel: str, epoch: str, publication: Publication, base: Publication, codec: DeltaCodec, text: Raw
    ) -> bytes | None:
        source = codec.delta_text(base.data)
        if not epoch or base.offset == 0 or base.offset != publication.offset - 1:
            return self._make(source, text)  # no neighbours: nobody will ask again
        # Most codecs leave most texts as they are, and then share the patch.
        own = "" if text is publication.data and source is base.data else codec.name
        key = (channel, epoch, publication.offset, own)
        try:
            return self._known[key]
        except KeyError:
            if self._budget <= 0:
                return None
            patch = self._known[key] = self._make(source, text)
            self.bytes += _ENTRY_BYTES + len(patch or b"")
            while self.bytes > self._bytes_max:
                forgotten = self._known.pop(next(iter(self._known)))
                self.bytes -= _ENTRY_BYTES + len(forgotten or b"")
            return patch

    def _make(self, source: Raw, target: Raw) -> bytes | None:
        if self._budget <= 0:
            return None
        self._budget -= len(source) + len(target)
        return create(bytes(source), bytes(target))
