"""Estimates of encoded sizes, and how many publications fit into one reply.

The estimates are for JSON, the larger encoding. They do not count escapes in texts, so the real size may be a few times
larger. The outbox of a session counts the bytes that are really queued.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from beaconfire.model.publication import ClientInfo, Publication

PUBLICATION_BYTES = 64
"""Bytes of the field names and numbers of one publication."""

PUSH_BYTES = 56
"""The same for a publication in a push of its own, without the name of the channel."""

CLIENT_INFO_BYTES = 48
"""Bytes of the field names of one client's presence entry."""


def _extras_size(publication: Publication) -> int:
    """Bytes of the optional fields of a publication."""
    size = client_info_size(publication.info) if publication.info is not None else 0
    if publication.tags:
        size += texts_size(publication.tags) + texts_size(publication.tags.values())
    return size


def client_info_size(info: ClientInfo) -> int:
    """Bytes of one presence entry."""
    return CLIENT_INFO_BYTES + len(info.user) + len(info.client) + len(info.conn_info) + len(info.chan_info)


def texts_size(texts: Iterable[str]) -> int:
    """Bytes of texts with quotes and separators."""
    return sum(len(text) + 4 for text in texts)


def push_size(channel: str) -> int:
    """Bytes of a push without the publication's own texts: at least as many as in a reply."""
    return max(PUBLICATION_BYTES, PUSH_BYTES + len(channel.encode()))


class ReplyBudget:
    """The bytes of publications that one reply may still hold."""

    __slots__ = ("_is_untouched", "_left_bytes", "_publication_bytes")

    def __init__(self, size_max: int, publication_bytes: int = PUBLICATION_BYTES) -> None:
        """`size_max` is in bytes. `publication_bytes` is the size of a publication without its own texts. The first
        publication fits whatever its size, because its reader could never continue otherwise."""
        self._left_bytes = size_max
        self._publication_bytes = publication_bytes
        self._is_untouched = True

    def take(self, publications: Sequence[Publication]) -> Sequence[Publication]:
        """Returns the first publications that fit, all of them if possible, and takes their size from the budget."""
        left_bytes, count, publication_bytes = self._left_bytes, 0, self._publication_bytes
        for publication in publications:
            # No call for most publications, because recoveries of many clients at once spend their time here.
            left_bytes -= publication_bytes + len(publication.data)
            if publication.info is not None or publication.tags:
                left_bytes -= _extras_size(publication)
            if left_bytes < 0 and (count or not self._is_untouched):
                break
            count += 1
        self._left_bytes = left_bytes
        self._is_untouched = self._is_untouched and not count
        return publications if count == len(publications) else publications[:count]
