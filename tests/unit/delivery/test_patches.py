"""Patches: each is made once, and kept within bounds."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.delivery.patches import Patches
from beaconfire.model.publication import Publication
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.protobuf_codec import ProtobufCodec
from beaconfire.protocols.fossil import create

JSON, PROTOBUF = JsonCodec(), ProtobufCodec()


def publication(offset: int, data: bytes = b"") -> Publication:
    return Publication(Raw(data or b'"This is number %d of very many that are all alike"' % offset), offset=offset)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The target of every patch that was made."""
    targets: list[bytes] = []

    def count(source: bytes, target: bytes) -> bytes | None:
        targets.append(target)
        return create(source, target)

    monkeypatch.setattr("beaconfire.delivery.patches.create", count)
    return targets


def test_patch_between_neighbours_is_made_once(made: list[bytes]) -> None:
    """All clients and both codecs share it."""
    patches = Patches()
    row = [publication(offset) for offset in range(1, 5)]
    for codec in (JSON, PROTOBUF, JSON):
        encoded = patches.encode_all("news", "e", row, None, codec)
        assert [publication.delta for publication in encoded] == [False, True, True, True]
    assert len(made) == 3
    patches.encode_all("sport", "e", row, None, JSON)
    patches.encode_all("news", "other", row, None, JSON)
    assert len(made) == 9, "another channel and another epoch have other publications"


def test_publication_after_a_missing_one_is_whole() -> None:
    """Also if the missing one is before the first, and after a publication without an offset."""
    patches = Patches()
    row = [publication(offset) for offset in (2, 4, 5, 0, 6)]
    for base, first in ((publication(1), True), (publication(0), False), (None, False)):
        encoded = patches.encode_all("news", "e", row, base, PROTOBUF)
        assert [publication.delta for publication in encoded] == [first, False, True, False, False]


def test_codecs_with_different_texts_have_different_patches(made: list[bytes]) -> None:
    """JSON is repaired and trimmed if necessary. Protobuf clients have the bytes as published."""
    patches = Patches()
    row = [
        publication(1, b' "\\ud83d and very many that are all alike"'),
        publication(2, b'"2 and very many that are all alike" '),
    ]
    first, _ = patches.encode_all("news", "e", row, None, JSON)
    assert bytes(first.data) == rb'"\"\\ufffd and very many that are all alike\""'
    first, _ = patches.encode_all("news", "e", row, None, PROTOBUF)
    assert first.data == row[0].data
    assert [target.strip() == target for target in made] == [True, False]


def test_kept_patches_are_bounded(made: list[bytes]) -> None:
    """The oldest patches are dropped, and made again if they are needed."""
    patches = Patches(bytes_max=1000)
    row = [publication(offset) for offset in range(1, 20)]
    patches.encode_all("news", "e", row, None, JSON)
    assert 0 < patches.bytes <= 1000
    assert len(made) == 18
    patches.encode_all("news", "e", row[-2:], None, JSON)
    assert len(made) == 18
    patches.encode_all("news", "e", row[:2], None, JSON)
    assert len(made) == 19


def test_compared_bytes_are_bounded(made: list[bytes]) -> None:
    """One piece of work compares a bounded number of bytes, and the remaining publications are whole.

    Kept patches cost nothing, so in the end all are patches.
    """
    patches = Patches()
    row = [publication(offset, b'"%d %s"' % (offset, b"x" * 40_000)) for offset in range(1, 11)]
    encoded = patches.encode_all("news", "e", row, None, PROTOBUF)
    assert [publication.delta for publication in encoded] == [False, *[True] * 4, *[False] * 5]
    for _ in range(2):
        encoded = patches.encode_all("news", "e", row, None, PROTOBUF)
    assert [publication.delta for publication in encoded] == [False, *[True] * 9]
    assert len(made) == 9


def test_publications_without_a_stream_count_as_compared(made: list[bytes]) -> None:
    """Patches between publications that no position orders are not kept, but have the same bound."""
    patches = Patches()
    base, publication_now = (publication(0, b'"%d %s"' % (number, b"x" * 60_000)) for number in range(2))
    deltas = [patches.encode("news", "", publication_now, base, PROTOBUF).delta for _ in range(4)]
    assert deltas == [True, True, True, False]
    assert len(made) == 3
    patches.refill()
    assert patches.encode("news", "", publication_now, base, PROTOBUF).delta
