"""Positions in the stream of a channel."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct


class StreamPosition(NamedTuple):
    """A position in a stream. Offsets rise within an epoch; offset 0 is the position before the first
    publication. An empty epoch means that the epoch is not known.
    """

    offset: int
    epoch: str


class SincePosition(Struct, frozen=True, omit_defaults=True):
    """A stream position in a request, where both fields may be missing (section 1, StreamPosition)."""

    offset: int = 0
    epoch: str = ""
