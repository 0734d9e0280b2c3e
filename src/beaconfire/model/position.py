"""Positions in a channel's stream."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct


class StreamPosition(NamedTuple):
    """Where a client stands in a channel's stream. Offsets rise by one within an epoch; 0 is before the first."""

    offset: int
    epoch: str


class SincePosition(Struct, frozen=True, omit_defaults=True):
    """`StreamPosition` as it stands in requests, where both halves may be missing."""

    offset: int = 0
    epoch: str = ""
