"""What a process finds in the file that another one has left, and what retention removes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from beaconfire.engines.port import PublishOptions
from beaconfire.engines.sqlite import receipts, streams
from beaconfire.engines.sqlite.publications import TRIM_MIN
from beaconfire.engines.sqlite.streams import ANCESTORS_MAX
from beaconfire.model.position import StreamPosition
from tests.unit.engines.sqlite.support import HISTORY, KEPT, Process


def test_everything_survives_the_process(start: Callable[[], Process]) -> None:
    """Publications, position, keys, versions and numbers."""
    versioned = replace(KEPT, version=2**64 - 1, version_epoch="v")
    first = start()
    position = first.publish("a", b"1", replace(KEPT, producer="p", seq=1, idempotency_key="k")).position
    first.publish("a", b"2", versioned)
    second = start()
    page = second.page("a")
    assert [bytes(publication.data) for publication in page.publications] == [b"1", b"2"]
    assert page.position == StreamPosition(2, position.epoch)
    assert second.publish("a", options=replace(KEPT, producer="p", seq=1)).position == position
    assert second.publish("a", options=replace(KEPT, idempotency_key="k")).position == position
    assert second.publish("a", options=versioned).suppressed == "version"
    assert second.publish("a").position == StreamPosition(3, position.epoch)


def test_an_empty_stream_keeps_its_epoch(start: Callable[[], Process]) -> None:
    """Subscribers hold this position, also before the first publication."""
    epoch = start().page("a").position.epoch
    assert start().publish("a").position == StreamPosition(1, epoch)


def test_the_position_of_an_attached_channel_is_prolonged(start: Callable[[], Process]) -> None:
    """Its subscribers hold the position. After the last one has left, the position expires."""
    process = start()
    process.attached.add("a")
    epoch = process.page("a").position.epoch
    for _ in range(5):
        process.clock.advance(200.0)
        process.sweep()
    assert process.page("a").position.epoch == epoch
    process.attached.clear()
    process.clock.advance(400.0)
    process.sweep()
    assert process.count("streams") == 0
    assert process.page("a").position.epoch != epoch


def test_a_position_is_kept_at_least_as_long_in_the_file(start: Callable[[], Process]) -> None:
    """A use does not write each time, but another process never forgets the position earlier."""
    process = start()
    epoch = process.publish("a").position.epoch
    changes = process.connection.total_changes
    process.clock.advance(50.0)
    process.page("a")
    assert process.connection.total_changes == changes
    process.clock.advance(100.0)
    process.page("a")
    assert process.connection.total_changes > changes
    now_s = process.clock.unix_s()
    successor = start()
    successor.clock.advance(now_s - successor.clock.unix_s() + 599.0)
    assert successor.page("a").position.epoch == epoch
    successor.clock.advance(700.0)
    assert successor.page("a").position.epoch != epoch


def test_retention_removes_in_slices(start: Callable[[], Process]) -> None:
    """The budget is the number of publications. Readers never get expired ones, removed or not."""
    process = start()
    for _ in range(25):
        process.publish("a")
    process.clock.advance(61.0)
    assert process.offsets("a") == []
    assert process.store.sweep(10)
    assert process.count("publications") == 15
    process.sweep()
    assert process.count("publications") == 0
    assert process.count("streams") == 1
    assert process.publish("a").position.offset == 26


def test_a_stream_with_publications_left_is_swept_again(start: Callable[[], Process]) -> None:
    """When the next publication expires."""
    process = start()
    process.publish("a")
    process.clock.advance(30.0)
    process.publish("a")
    process.clock.advance(31.0)
    process.sweep()
    assert process.count("publications") == 1
    process.clock.advance(30.0)
    process.sweep()
    assert process.count("publications") == 0


def test_an_expired_stream_is_removed_with_everything(start: Callable[[], Process]) -> None:
    """Publications, producers and idempotency keys."""
    process = start()
    process.publish("a", options=replace(KEPT, producer="p", seq=1, idempotency_key="k"))
    process.clock.advance(2000.0)
    process.sweep()
    assert [process.count(table) for table in ("streams", "publications", "producers", "idempotency_keys")] == [0] * 4


def test_a_replaced_stream_is_removed_later(start: Callable[[], Process]) -> None:
    """The channel gets a new stream at once, whatever the old one has left in the file."""
    process = start()
    for _ in range(5):
        process.publish("a")
    process.clock.advance(2000.0)
    assert process.publish("a").position.offset == 1
    assert process.count("publications") == 6
    process.sweep()
    assert (process.count("streams"), process.count("publications")) == (1, 1)
    assert process.offsets("a") == [1]


def test_what_exceeds_the_size_is_removed_together(start: Callable[[], Process]) -> None:
    """Readers never get it, removed or not."""
    process = start()
    small = PublishOptions(history=replace(HISTORY, size=5))
    for _ in range(5 + TRIM_MIN - 1):
        process.publish("a", options=small)
    assert process.count("publications") == 5 + TRIM_MIN - 1
    process.publish("a", options=small)
    assert process.count("publications") == 5
    assert process.offsets("a") == list(range(TRIM_MIN + 1, TRIM_MIN + 6))


def test_removed_publications_are_swept(start: Callable[[], Process]) -> None:
    """Removal only hides them; retention frees the space."""
    process = start()
    process.publish("a")
    process.clear("a")
    process.clear("a")
    process.clear("unknown")
    assert process.offsets("a") == []
    process.sweep()
    assert process.count("publications") == 0


def test_caches_are_bounded(start: Callable[[], Process], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are not in memory are read again."""
    monkeypatch.setattr(streams, "CACHED_MAX", 2)
    monkeypatch.setattr(receipts, "PRODUCERS_CACHED_MAX", 2)
    process = start()
    for channel in "abcd":
        process.publish(channel, options=replace(KEPT, producer="p", seq=1))
    assert len(process.store._streams._cache) == 2
    assert len(process.store._producers._cache) == 2
    for channel in "abcd":
        assert process.publish(channel, options=replace(KEPT, producer="p", seq=1)).suppressed == "producer"
        assert process.publish(channel, options=replace(KEPT, producer="p", seq=2)).position.offset == 2


def test_a_copy_goes_on_under_new_epochs(start: Callable[[], Process], tmp_path: Path) -> None:
    """Positions that the copy shares continue in it, later ones of the original do not."""
    original = start()
    for _ in range(3):
        shared = original.publish("a").position
    original.end()
    shutil.copy(original.path, tmp_path / "copy.db")
    original.start()
    beyond = original.publish("a").position
    copy = Process(tmp_path / "copy.db").start()
    page = copy.page("a", shared)
    assert (page.continues, page.position.offset) == (True, 3)
    assert page.position.epoch != shared.epoch
    assert copy.publish("a").position == StreamPosition(4, page.position.epoch)
    assert copy.page("a", shared).continues
    assert [publication.offset for publication in copy.page("a", shared).publications] == [4]
    assert not copy.page("a", beyond).continues
    assert copy.page("a", StreamPosition(2, shared.epoch)).continues
    assert copy.page("a", shared, reverse=True).continues
    assert not copy.page("a", StreamPosition(3, "foreign"), reverse=True).continues
    copy.end()


def test_a_few_ancestors_are_remembered(start: Callable[[], Process], tmp_path: Path) -> None:
    """The oldest one is forgotten: its positions do not continue any more."""
    process = start()
    epochs = [process.publish("a").position.epoch]
    for number in range(ANCESTORS_MAX + 1):
        process.end()
        path = tmp_path / f"{number}.db"
        shutil.copy(process.path, path)
        process = Process(path).start()
        epochs.append(process.publish("a").position.epoch)
    assert len(set(epochs)) == ANCESTORS_MAX + 2
    assert [process.page("a", StreamPosition(1, epoch)).continues for epoch in epochs] == [False] + [True] * (
        ANCESTORS_MAX + 1
    )
    process.end()
