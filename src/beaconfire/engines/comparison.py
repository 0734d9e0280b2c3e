"""Compares the images of one channel in two engines, and names each difference."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import Struct

from beaconfire.engines.migration import Difference, StreamTotals
from beaconfire.engines.transfer import EXPIRY_TOLERANCE_S, StreamImage
from beaconfire.model.publication import Publication

HASH_BYTES: Final = 16

POSITION_TOLERANCE: Final = 0.1
"""By which part of its remaining life the position of a stream may expire earlier in the new engine: after a restart,
the old one may keep it up to a tenth longer. It may expire later: engines promise only a least time (`HistoryOptions`),
and the SQLite engine adds a tenth of the whole life to what it does not have in memory."""

_NAMED_MAX: Final = 3
"""How many publications of a channel are named. The rest is counted."""

_encode = msgspec.msgpack.Encoder().encode


class Totals(Struct):
    """What was compared in one engine: channels, publications, and a hash over all of it.

    The hash does not depend on the order of the channels. It covers epochs, positions, publications, versions,
    producers and idempotency keys, but no times.
    """

    channels: int = 0
    publications: int = 0
    digest: int = 0

    def add(self, image: StreamImage | None) -> None:
        """Adds one channel. None: the engine keeps nothing for it."""
        if image is not None:
            self.channels += 1
            self.publications += len(image.publications)
            self.digest = (self.digest + _hash(image)) % 2 ** (8 * HASH_BYTES)

    @property
    def hash(self) -> str:
        return f"{self.digest:0{2 * HASH_BYTES}x}"

    def freeze(self) -> StreamTotals:
        """The totals at this moment."""
        return StreamTotals(self.channels, self.publications, self.hash)


def differences(old: StreamImage | None, new: StreamImage | None, at_s: float) -> list[Difference]:
    """All differences between two whole images of a channel, made for the time `at_s`. None: nothing is kept."""
    image = old or new
    return [Difference(image.channel, what) for what in _describe(old, new, at_s)] if image is not None else []


def _describe(old: StreamImage | None, new: StreamImage | None, at_s: float) -> Iterator[str]:
    if old is None or new is None:
        yield "the new engine has nothing of this channel" if new is None else "the old engine has nothing of it"
        return
    if old.position.epoch != new.position.epoch:
        yield f"epoch: {old.position.epoch!r} in the old engine, {new.position.epoch!r} in the new one"
    for name, one, other in (
        ("offset", old.position.offset, new.position.offset),
        ("oldest offset", old.oldest, new.oldest),
        ("number of publications", len(old.publications), len(new.publications)),
        ("version", (old.version, old.version_epoch), (new.version, new.version_epoch)),
        ("earlier epochs", list(old.ancestors), list(new.ancestors)),
    ):
        if one != other:
            yield f"{name}: {one} in the old engine, {other} in the new one"
    early_s = old.expires_s - new.expires_s
    if old.has_stream and early_s > EXPIRY_TOLERANCE_S + POSITION_TOLERANCE * (old.expires_s - at_s):
        yield f"expiry of the position: {early_s:.0f} s earlier in the new engine"
    yield from _publications(old, new)
    yield from _producers(old, new)
    yield from _keys(old, new)


def _publications(old: StreamImage, new: StreamImage) -> Iterator[str]:
    others = dict(zip((each.offset for each in new.publications), _stored(new), strict=True))
    found = []
    for publication, expires_s in _stored(old):
        other = others.pop(publication.offset, None)
        if other is None:
            found.append(f"publication {publication.offset}: missing in the new engine")
        elif other[0] != publication:
            found.append(f"publication {publication.offset}: {_parts(publication, other[0])} differ")
        elif _differ(expires_s, other[1]):
            found.append(
                f"publication {publication.offset}: expires {other[1] - expires_s:+.0f} s later in the new one"
            )
    found += [f"publication {offset}: missing in the old engine" for offset in others]
    yield from found[:_NAMED_MAX]
    if len(found) > _NAMED_MAX:
        yield f"{len(found) - _NAMED_MAX} more publications differ"


def _stored(image: StreamImage) -> Iterator[tuple[Publication, float]]:
    return zip(image.publications, image.publication_expiries_s, strict=True)


def _parts(one: Publication, other: Publication) -> str:
    names = [name for name in ("data", "info", "tags", "epoch") if getattr(one, name) != getattr(other, name)]
    return " and ".join(names)


def _producers(old: StreamImage, new: StreamImage) -> Iterator[str]:
    ones, others = ({each.name: each for each in image.producers} for image in (old, new))
    for name in {**ones, **others}:
        one, other = ones.get(name), others.get(name)
        if one is None or other is None:
            yield f"producer {name!r}: missing in the {'old' if one is None else 'new'} engine"
        elif one != other:
            detail = f"number {one.last} in the old engine, {other.last} in the new one"
            yield f"producer {name!r}: {detail if one.last != other.last else 'the receipts differ'}"


def _keys(old: StreamImage, new: StreamImage) -> Iterator[str]:
    ones, others = ({each.key: each for each in image.keys} for image in (old, new))
    wrong = [
        key
        for key in {**ones, **others}
        if (one := ones.get(key)) is None
        or (other := others.get(key)) is None
        or one.position != other.position
        or _differ(one.expires_s, other.expires_s)
    ]
    if wrong:
        yield f"idempotency keys: {len(wrong)} differ, the first is {wrong[0]!r}"


def _differ(one_s: float, other_s: float) -> bool:
    return abs(one_s - other_s) > EXPIRY_TOLERANCE_S


def _hash(image: StreamImage) -> int:
    hashed = hashlib.blake2b(
        _encode(
            (
                image.channel,
                image.position,
                image.oldest,
                image.version,
                image.version_epoch,
                list(image.ancestors),
                sorted((each.name, each.last, each.epoch, each.receipts) for each in image.producers),
                sorted((each.key, each.position) for each in image.keys),
            )
        ),
        digest_size=HASH_BYTES,
    )
    for publication in image.publications:
        info = publication.info
        packed = None if info is None else (info.user, info.client, bytes(info.conn_info), bytes(info.chan_info))
        tags = sorted((publication.tags or {}).items())
        hashed.update(_encode((publication.offset, bytes(publication.data), packed, tags)))
    return int.from_bytes(hashed.digest(), "big")
