"""Creates patches in the Fossil delta format. A patch describes a target text by copies from a source text and by
inserted bytes.

    <length of the target>\\n  { <count>@<offset>,  |  <count>:<bytes> }  <checksum>;

`@` copies from the source, `:` inserts the bytes that follow. Numbers are written in base 64. The checksum is the sum
of the target as big-endian words of 32 bits, the last word padded with zeros (section 11 of the Centrifuge client
protocol; the format is that of the Fossil version control system).

Theory of operation:

* The common prefix and suffix of both texts are found by comparing slices, which runs in C.
* Between them, the source is cut into blocks of 16 bytes, in a dict by content. The target is scanned byte by byte
  until its next 16 bytes are such a block. Then the match is extended in both directions.
* While nothing matches, the steps of the scan become longer, so that two unrelated texts cost little time.

The time is bounded by the size of both texts.
"""

from __future__ import annotations

import struct
from typing import Final

BLOCK: Final = 16
"""The length of a block. A copy takes up to 12 bytes, so copying much shorter texts would save nothing."""

SIZE_MAX: Final = 64 * 1024
"""Larger texts get no patch: creating it would block the event loop for too long (4 ms)."""

COPIES_MAX: Final = 1024
"""The largest number of copies in a patch; the rest is inserted. This limits the time for texts with very many matches.
"""

_DIGITS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
_MISSES_LOG2: Final = 7
"""After each 2**7 misses the steps become longer by 2. Steps stay odd, so that all alignments are tried in turn."""


def create(source: bytes, target: bytes) -> bytes | None:
    """Returns the patch from `source` to `target`, or None if the patch would not be smaller than `target` or a text is
    too large."""
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
    _append_middle(parts, source, target, head, size - tail)
    if tail:
        parts.append(_copy(tail, len(source) - tail))
    parts += (_number(checksum(target)), b";")
    patch = b"".join(parts)
    return patch if len(patch) < size else None


def checksum(text: bytes) -> int:
    """The checksum of a target, below 2**32."""
    words = (len(text) + 3) // 4
    numbers: tuple[int, ...] = struct.unpack(f">{words}I", text.ljust(words * 4, b"\0"))
    return sum(numbers) & 0xFFFFFFFF


def _append_middle(parts: list[bytes], source: bytes, target: bytes, start: int, stop: int) -> None:
    """Appends copies and inserts for `target[start:stop]` to `parts`."""
    written = here = start
    misses = copies = 0
    last = stop - BLOCK
    blocks: dict[bytes, int] = {}
    if here <= last:
        # Backwards, so that the first of several equal blocks is kept: its offset takes the fewest digits.
        first = (len(source) // BLOCK - 1) * BLOCK
        blocks = {source[at : at + BLOCK]: at for at in range(first, -1, -BLOCK)}
    while here <= last and copies < COPIES_MAX:
        found = blocks.get(target[here : here + BLOCK])
        if found is None:
            misses += 1
            here += 1 + 2 * (misses >> _MISSES_LOG2)
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
    """The number of equal bytes from `source[at]` and `target[here]` on. Compares slices of growing length, then
    bisects the last slice."""
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
    """The number of equal bytes before `source[at]` and `target[here]`, in the target not before `here_min`."""
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
    """The number in base 64, the most significant digit first."""
    digits = bytearray()
    while True:
        digits.append(_DIGITS[number & 63])
        number >>= 6
        if not number:
            digits.reverse()
            return bytes(digits)
