"""About how many bytes things take in an answer, known before they are encoded; and how much of them one answer holds.

Estimates are for JSON, the larger encoding. They leave out escapes in texts, so they bound memory to a small factor.
What is really queued for a client is counted exactly, by its outbox.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from beaconfire.messages import ClientInfo, Publication

PUBLICATION_BYTES = 64
"""Field names and numbers of one publication."""

CLIENT_INFO_BYTES = 48
"""Field names of one client's entry."""


def publication_size(publication: Publication) -> int:
    """Bytes of one publication."""
    size = PUBLICATION_BYTES + len(publication.data)
    return size + _extras_size(publication) if publication.info is not None or publication.tags else size


def _extras_size(publication: Publication) -> int:
    """Bytes of what not every publication has."""
    size = client_info_size(publication.info) if publication.info is not None else 0
    if publication.tags:
        size += texts_size(publication.tags) + texts_size(publication.tags.values())
    return size


def client_info_size(info: ClientInfo) -> int:
    """Bytes of one entry of presence."""
    return CLIENT_INFO_BYTES + len(info.user) + len(info.client) + len(info.conn_info) + len(info.chan_info)


def texts_size(texts: Iterable[str]) -> int:
    """Bytes of texts with their quotes and separators."""
    return sum(len(text) + 4 for text in texts)


class ReplyBudget:
    """How many bytes of publications one reply may still hold."""

    __slots__ = ("_is_untouched", "_left_bytes")

    def __init__(self, size_max: int) -> None:
        """`size_max` is in bytes. The first publication passes whatever its size, or its reader could never go on."""
        self._left_bytes = size_max
        self._is_untouched = True

    def take(self, publications: Sequence[Publication]) -> Sequence[Publication]:
        """The first of them that fit, all of them if possible. They are charged."""
        left_bytes, count = self._left_bytes, 0
        for publication in publications:
            # `publication_size`, written out: recoveries of many clients at once spend their time here.
            left_bytes -= PUBLICATION_BYTES + len(publication.data)
            if publication.info is not None or publication.tags:
                left_bytes -= _extras_size(publication)
            if left_bytes < 0 and (count or not self._is_untouched):
                break
            count += 1
        self._left_bytes = left_bytes
        self._is_untouched = self._is_untouched and not count
        return publications if count == len(publications) else publications[:count]
