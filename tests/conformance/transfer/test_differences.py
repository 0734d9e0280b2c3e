"""A planted difference is found and named, whatever the engines are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from beaconfire.engines.transfer import ProducerImage, StreamImage
from beaconfire.model.position import StreamPosition

from .harness import Pair, Run


def _publication(image: StreamImage, index: int, **changes: Any) -> StreamImage:
    publications = list(image.publications)
    publications[index] = replace(publications[index], **changes)
    return replace(image, publications=publications)


def _missing_first(image: StreamImage) -> StreamImage:
    return replace(
        image,
        oldest=image.oldest + 1,
        publications=image.publications[1:],
        publication_expiries_s=image.publication_expiries_s[1:],
    )


def _missing_last(image: StreamImage) -> StreamImage:
    position = StreamPosition(image.position.offset - 1, image.position.epoch)
    return replace(
        image,
        position=position,
        publications=image.publications[:-1],
        publication_expiries_s=image.publication_expiries_s[:-1],
    )


def _lost_number(image: StreamImage) -> StreamImage:
    producer = image.producers[0]
    return replace(image, producers=[ProducerImage(producer.name, producer.last - 1, producer.epoch, b"")])


PLANTED: dict[str, tuple[Callable[[StreamImage], StreamImage], str]] = {
    "missing publication": (_missing_first, "publication 1: missing in the new engine"),
    "missing newest publication": (_missing_last, "offset: 3 in the old engine, 2 in the new one"),
    "changed byte": (lambda image: _publication(image, 1, data=Raw(b"1!")), "publication 2: data differ"),
    "changed tags": (lambda image: _publication(image, 2, tags={"k": "w"}), "publication 3: tags differ"),
    "wrong epoch": (lambda image: replace(image, position=StreamPosition(3, "WRONG")), "epoch: "),
    "wrong offset": (
        lambda image: replace(image, position=StreamPosition(4, image.position.epoch), publications=(), oldest=5,
                              publication_expiries_s=()),
        "offset: 3 in the old engine, 4 in the new one",
    ),
    "lost producer number": (_lost_number, "producer 'p': number 3 in the old engine, 2 in the new one"),
    "lost producer": (lambda image: replace(image, producers=()), "producer 'p': missing in the new engine"),
    "lost key": (lambda image: replace(image, keys=()), "idempotency keys: 1 differ, the first is 'k'"),
    "older version": (lambda image: replace(image, version=1), "version: (3, 'v') in the old engine, (1, 'v')"),
    "longer life": (
        lambda image: replace(image, publication_expiries_s=[each + 5 for each in image.publication_expiries_s]),
        "publication 1: expires +5 s later",
    ),
    "shorter position": (
        lambda image: replace(image, expires_s=image.expires_s - 100), "expiry of the position: 100 s earlier"
    ),
    "another ancestor": (lambda image: replace(image, ancestors=[("EPOCH", 2)]), "earlier epochs: "),
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_difference_is_found(run: Run, planted: str) -> None:
    """Exactly the changed channel is reported, with the change; the hashes differ; a new copy repairs the channel."""
    change, expected = PLANTED[planted]

    async def scenario(pair: Pair) -> None:
        for channel in ("a", "b", "c"):
            for number in range(3):
                await pair.old.publish(
                    channel,
                    b"%d" % number,
                    tags={"k": "v"},
                    producer="p",
                    seq=number + 1,
                    idempotency_key="k" if number == 1 else "",
                    version=number + 1,
                    version_epoch="v",
                )
        await pair.copy.copy()
        image = await pair.old.image("b")
        assert image is not None
        await pair.new.transfer.load([change(image)])
        report = await pair.copy.verify()
        assert report.different == 1
        assert {each.channel for each in report.listed} == {"b"}
        assert any(each.what.startswith(expected) for each in report.listed), report.listed
        if planted not in ("longer life", "shorter position"):
            assert report.old.hash != report.new.hash
        assert (await pair.copy.copy()).copied == 1
        assert (await pair.copy.verify()).is_equal

    run(scenario)


def test_a_position_that_is_kept_longer_is_no_difference(run: Run) -> None:
    """Engines promise only a least time."""

    async def scenario(pair: Pair) -> None:
        await pair.old.publish("a")
        await pair.copy.copy()
        image = await pair.old.image("a")
        assert image is not None
        await pair.new.transfer.load([replace(image, expires_s=image.expires_s + 1000)])
        assert (await pair.copy.verify()).is_equal

    run(scenario)


def test_a_channel_that_only_one_engine_has_is_found(run: Run) -> None:
    """Both directions, each named."""

    async def scenario(pair: Pair) -> None:
        await pair.old.publish("a")
        await pair.copy.copy()
        await pair.old.publish("b")
        await pair.new.publish("c")
        report = await pair.copy.verify()
        assert [(each.channel, each.what) for each in report.listed] == [
            ("b", "the new engine has nothing of this channel"),
            ("c", "the old engine has nothing of it"),
        ]
        assert (report.old.channels, report.new.channels, report.different) == (2, 2, 2)

    run(scenario)
