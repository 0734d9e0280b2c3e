"""About how many bytes things take in an answer, known before they are encoded; and how much of them one answer holds.

Estimates are for JSON, the larger encoding. They leave out escapes in texts, so they bound memory to a small factor.
What is really queued for a client is counted exactly, by its outbox.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from beaconfire.model.publication import ClientInfo, Publication

PUBLICATION_BYTES = 64
"""Field names and numbers of one publication."""

PUSH_BYTES = 56
"""The same, of one publication in a push of its own; the channel's name comes in addition."""

CLIENT_INFO_BYTES = 48
"""Field names of one client's entry."""


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


def push_size(channel: str) -> int:
    """Bytes of a push beside what it says of its publication: at least as many as in a reply."""
    return max(PUBLICATION_BYTES, PUSH_BYTES + len(channel.encode()))


class ReplyBudget:
    """How many bytes of publications one reply may still hold."""

    __slots__ = ("_is_untouched", "_left_bytes", "_publication_bytes")

    def __init__(self, size_max: int, publication_bytes: int = PUBLICATION_BYTES) -> None:
        """`size_max` is in bytes, and `publication_bytes` what a publication takes beside its own texts. The first
        publication passes whatever its size, or its reader could never go on."""
        self._left_bytes = size_max
        self._publication_bytes = publication_bytes
        self._is_untouched = True

    def take(self, publications: Sequence[Publication]) -> Sequence[Publication]:
        """The first of them that fit, all of them if possible. They are charged."""
        left_bytes, count, publication_bytes = self._left_bytes, 0, self._publication_bytes
        for publication in publications:
            # Without a call for most of them: recoveries of many clients at once spend their time here.
            left_bytes -= publication_bytes + len(publication.data)
            if publication.info is not None or publication.tags:
                left_bytes -= _extras_size(publication)
            if left_bytes < 0 and (count or not self._is_untouched):
                break
            count += 1
        self._left_bytes = left_bytes
        self._is_untouched = self._is_untouched and not count
        return publications if count == len(publications) else publications[:count]
