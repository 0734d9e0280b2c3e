"""Patches in the Fossil delta format."""

from __future__ import annotations

import json
import random

import pytest
from centrifuge.fossil import apply_delta
from hypothesis import given
from hypothesis import strategies as st

from beaconfire.protocols.fossil import COPIES_MAX, SIZE_MAX, checksum, create
from tests.unit.patching import apply


@st.composite
def edited(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A text and an edited version of it, with pieces inserted, removed and moved."""
    source = draw(st.binary(max_size=300)) * draw(st.integers(1, 3))
    target = source
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(target)))
        stop = draw(st.integers(start, len(target)))
        piece, rest = target[start:stop], target[:start] + target[stop:]
        place = draw(st.integers(0, len(rest)))
        target = rest[:place] + draw(st.sampled_from([b"", piece, draw(st.binary(max_size=40))])) + rest[place:]
    return source, target


@given(edited())
def test_a_patch_turns_the_source_into_the_target(pair: tuple[bytes, bytes]) -> None:
    """For our own strict decoder and for that of the Python SDK. The patch is smaller than the target."""
    source, target = pair
    patch = create(source, target)
    if patch is not None:
        assert len(patch) < len(target)
        assert apply(source, patch) == target
        assert bytes(apply_delta(source, patch)) == target


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_unrelated_texts(source: bytes, target: bytes) -> None:
    """Unrelated texts rarely have a patch; a patch that exists is correct."""
    patch = create(source, target)
    assert patch is None or apply(source, patch) == target


def test_small_changes_make_small_patches() -> None:
    """Changes in several places: at the beginning, in the middle and at the end."""
    prices = {f"share{number}": {"price": number * 1.25, "name": "n" * 40} for number in range(50)}
    before = json.dumps(prices).encode()
    for name in ("share0", "share25", "share49"):
        prices[name]["price"] = 99.5
    after = json.dumps(prices).encode()
    patch = create(before, after)
    assert patch is not None
    assert len(patch) < 120 < len(after) // 20
    assert apply(before, patch) == after


def test_moved_blocks_are_found() -> None:
    """Two halves that swap their places become two copies."""
    half, other = random.Random(1).randbytes(500), random.Random(2).randbytes(500)
    patch = create(half + other, other + half)
    assert patch is not None
    assert len(patch) < 50
    assert apply(half + other, patch) == other + half


def test_identical_texts_become_one_copy() -> None:
    """The exact bytes of the format: length, copy, checksum."""
    assert create(b"abcd" * 16, b"abcd" * 16) == b"10\n10@0,M9ZP0;"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (b"", b"x" * 100),
        (b"x" * 100, b""),
        (b"0123456789abcdef", b"0123456789abcdef"),
        (random.Random(1).randbytes(1000), random.Random(2).randbytes(1000)),
        (b"x" * SIZE_MAX, b"x" * (SIZE_MAX + 1)),
        (b"x" * (SIZE_MAX + 1), b"x" * SIZE_MAX),
    ],
    ids=["no source", "no target", "short", "unrelated", "large target", "large source"],
)
def test_no_patch_if_it_would_not_be_smaller(source: bytes, target: bytes) -> None:
    """Then the full text is sent."""
    assert create(source, target) is None


def test_the_number_of_copies_is_limited() -> None:
    """A text with as many matches as possible has at most `COPIES_MAX` copies; the rest is inserted."""
    source = random.Random(1).randbytes(SIZE_MAX)
    blocks = [source[at : at + 16] for at in range(0, SIZE_MAX, 16)]
    random.Random(2).shuffle(blocks)
    target = b"".join(blocks)
    patch = create(source, target)
    assert patch is not None
    assert apply(source, patch) == target
    assert len(patch) > (len(blocks) - COPIES_MAX - 2) * 16


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"", 0), (b"\x01", 1 << 24), (b"\x00\x00\x00\x01\x02", 1 + (2 << 24)), (b"\xff" * 8, 0xFFFFFFFE)],
)
def test_checksums(text: bytes, expected: int) -> None:
    """Big-endian words of 32 bits, the last one padded with zeros, are added modulo 2**32."""
    assert checksum(text) == expected
