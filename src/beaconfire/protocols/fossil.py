"""Patches in the Fossil delta format: what must be copied from one text, and what inserted, to make another.

    <length of the target>\\n  { <count>@<offset>,  |  <count>:<bytes> }  <checksum>;

`@` copies from the source, `:` inserts the bytes that follow. Numbers are written to base 64. The checksum is the sum
of the target read as big-endian words of 32 bits, the last one filled up with zeros. (Section 11 of the Centrifuge
client protocol; the format itself is that of the Fossil version control system.)

Theory of operation. What both texts begin and end with is found by comparing slices, which is no Python. In between,
the source is cut into blocks of 16 bytes, kept in a dict by their content; the target is walked byte by byte until 16
of them are such a block, and then the match is grown in both directions. Where nothing matches, the steps become
longer, so that two texts that have nothing in common cost little. The work is bounded by the size of both.
"""

from __future__ import annotations

import struct
from typing import Final

BLOCK: Final = 16
"""A copy costs up to 12 bytes, so nothing much shorter is worth one."""

SIZE_MAX: Final = 64 * 1024
"""Larger texts are not compared: it would take longer than the event loop should be kept (4 ms)."""

COPIES_MAX: Final = 1024
"""After so many copies the rest is inserted: a text made to be cut to pieces must not take long either."""

_DIGITS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
_PATIENCE: Final = 7
"""After each 2**7 misses the steps become longer by 2. They stay odd, so that every alignment is tried in turn."""


def create(source: bytes, target: bytes) -> bytes | None:
    """The patch that makes `target` of `source`; None if it would not be smaller than `target`, or takes too long."""
    size = len(target)
    if size <= BLOCK or not source or max(size, len(source)) > SIZE_MAX:
        return None
    head = _common_prefix(source, target, 0, 0)
    if head < BLOCK:
        head = 0
    tail = _common_suffix(source, target, len(source), size, head)
    if tail < BLOCK:
        tail = 0
    parts = [_number(size), b"\n"]
    if head:
        parts.append(_copy(head, 0))
    _write_middle(parts, source, target, head, size - tail)
    if tail:
        parts.append(_copy(tail, len(source) - tail))
    parts += (_number(checksum(target)), b";")
    patch = b"".join(parts)
    return patch if len(patch) < size else None


def checksum(text: bytes) -> int:
    """Of a target, below 2**32."""
    words = (len(text) + 3) // 4
    numbers: tuple[int, ...] = struct.unpack(f">{words}I", text.ljust(words * 4, b"\0"))
    return sum(numbers) & 0xFFFFFFFF


def _write_middle(parts: list[bytes], source: bytes, target: bytes, start: int, stop: int) -> None:
    """Appends what makes `target[start:stop]`."""
    written = here = start
    misses = copies = 0
    last = stop - BLOCK
    blocks: dict[bytes, int] = {}
    if here <= last:
        # Backwards, so that of equal blocks the first one stays: its number is the shortest.
        first = (len(source) // BLOCK - 1) * BLOCK
        blocks = {source[at : at + BLOCK]: at for at in range(first, -1, -BLOCK)}
    while here <= last and copies < COPIES_MAX:
        found = blocks.get(target[here : here + BLOCK])
        if found is None:
            misses += 1
            here += 1 + 2 * (misses >> _PATIENCE)
            continue
        back = _common_suffix(source, target, found, here, written)
        begin, at = here - back, found - back
        count = min(_common_prefix(source, target, found, here) + back, stop - begin)
        if begin > written:
            parts.append(_insert(target[written:begin]))
        parts.append(_copy(count, at))
        written = here = begin + count
        misses = 0
        copies += 1
    if written < stop:
        parts.append(_insert(target[written:stop]))


def _common_prefix(source: bytes, target: bytes, at: int, here: int) -> int:
    """How many bytes are the same in both from these places on: by slices that grow, then by halving the last one."""
    limit = min(len(source) - at, len(target) - here)
    same, step = 0, BLOCK
    while same + step <= limit and source[at + same : at + same + step] == target[here + same : here + same + step]:
        same += step
        step *= 2
    most = min(same + step - 1, limit)
    while same < most:
        middle = (same + most + 1) // 2
        if source[at + same : at + middle] == target[here + same : here + middle]:
            same = middle
        else:
            most = middle - 1
    return same


def _common_suffix(source: bytes, target: bytes, at: int, here: int, here_min: int) -> int:
    """How many bytes are the same in both before these places, of the target none before `here_min`."""
    limit = min(at, here - here_min)
    same, step = 0, BLOCK
    while same + step <= limit and source[at - same - step : at - same] == target[here - same - step : here - same]:
        same += step
        step *= 2
    most = min(same + step - 1, limit)
    while same < most:
        middle = (same + most + 1) // 2
        if source[at - middle : at - same] == target[here - middle : here - same]:
            same = middle
        else:
            most = middle - 1
    return same


def _copy(count: int, offset: int) -> bytes:
    return b"%b@%b," % (_number(count), _number(offset))


def _insert(text: bytes) -> bytes:
    return b"%b:%b" % (_number(len(text)), text)


def _number(number: int) -> bytes:
    """To base 64, the most significant digit first."""
    digits = bytearray()
    while True:
        digits.append(_DIGITS[number & 63])
        number >>= 6
        if not number:
            digits.reverse()
            return bytes(digits)
