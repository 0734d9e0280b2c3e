"""Applies Fossil deltas, as a client does. The checks are strict, so every SDK accepts what they accept."""

from __future__ import annotations

import hashlib

from beaconfire.protocols.fossil import checksum

_DIGITS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"


def chained_text(number: int) -> str:
    """One of a series of texts. Only two neighbours have a part in common, so a patch fits no other base."""
    earlier, own = (hashlib.sha256(b"%d" % each).hexdigest()[:48] for each in (number - 1, number))
    return f"After {earlier} comes {own}, number {number}"


def apply(source: bytes, patch: bytes) -> bytes:
    """Applies the patch to the source. Raises AssertionError if the patch is not exactly right."""
    size, position = _number(patch, 0)
    assert patch[position : position + 1] == b"\n", "no line break after the length"
    position += 1
    target = bytearray()
    while True:
        number, position = _number(patch, position)
        operator = patch[position : position + 1]
        position += 1
        if operator == b"@":
            offset, position = _number(patch, position)
            assert patch[position : position + 1] == b",", "no comma after a copy"
            assert 0 < number <= len(source) - offset, "copied from after the end of the source"
            position += 1
            target += source[offset : offset + number]
        elif operator == b":":
            assert 0 < number <= len(patch) - position, "inserted from after the end of the patch"
            target += patch[position : position + number]
            position += number
        else:
            assert operator == b";", f"unknown operator {operator!r}"
            assert position == len(patch), "something after the end"
            assert len(target) == size
            assert checksum(bytes(target)) == number
            return bytes(target)


def _number(patch: bytes, position: int) -> tuple[int, int]:
    number, start = 0, position
    while patch[position] in _DIGITS:
        number = number << 6 | _DIGITS.index(patch[position])
        position += 1
    assert position > start, "a number is missing"
    return number, position
