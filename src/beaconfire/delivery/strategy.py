"""What one subscription receives instead of every publication as it is."""

from __future__ import annotations

from beaconfire.delivery.conflation import Conflation
from beaconfire.delivery.tags_filter import TagsFilter
from beaconfire.model.publication import Publication
from beaconfire.protocols.port import DeltaCodec


class DeliveryStrategy:
    """A filter, patches, only the newest publication, or several of these. Most subscriptions have no strategy."""

    __slots__ = ("base", "codec", "conflation", "tags_filter")

    def __init__(
        self, tags_filter: TagsFilter | None, codec: DeltaCodec | None, conflation: Conflation | None = None
    ) -> None:
        """`codec` is the session's codec if the subscription gets patches."""
        self.tags_filter = tags_filter
        self.codec = codec
        self.conflation = conflation
        self.base: Publication | None = None
        """The last publication that was sent to the client. The next patch may start from it."""

    def passes(self, publication: Publication) -> bool:
        return self.tags_filter is None or self.tags_filter.passes(publication.tags)
