"""The other half of Fossil deltas, as a client has it: strict, so that what it accepts every SDK accepts."""

from __future__ import annotations

import hashlib

from beaconfire.protocols.fossil import checksum

_DIGITS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"


def chained_text(number: int) -> str:
    """One of a row of texts. Each shares with the one before what no other has, so that a patch fits no other base."""
    earlier, own = (hashlib.sha256(b"%d" % each).hexdigest()[:48] for each in (number - 1, number))
    return f"After {earlier} comes {own}, number {number}"


def apply(source: bytes, patch: bytes) -> bytes:
    """What the patch makes of the source. Raises AssertionError for whatever is not exactly right."""
    size, place = _number(patch, 0)
    assert patch[place : place + 1] == b"\n", "no line break after the length"
    place += 1
    target = bytearray()
    while True:
        number, place = _number(patch, place)
        operator = patch[place : place + 1]
        place += 1
        if operator == b"@":
            offset, place = _number(patch, place)
            assert patch[place : place + 1] == b",", "no comma after a copy"
            assert 0 < number <= len(source) - offset, "copied from beyond the source"
            place += 1
            target += source[offset : offset + number]
        elif operator == b":":
            assert 0 < number <= len(patch) - place, "inserted from beyond the patch"
            target += patch[place : place + number]
            place += number
        else:
            assert operator == b";", f"unknown operator {operator!r}"
            assert place == len(patch), "something after the end"
            assert len(target) == size
            assert checksum(bytes(target)) == number
            return bytes(target)


def _number(patch: bytes, place: int) -> tuple[int, int]:
    number, start = 0, place
    while patch[place] in _DIGITS:
        number = number << 6 | _DIGITS.index(patch[place])
        place += 1
    assert place > start, "a number is missing"
    return number, place
