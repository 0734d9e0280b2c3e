"""Suppressed publishes: idempotency keys and versions."""

from __future__ import annotations

import asyncio

from beaconfire.engines.port import NO_HISTORY, HistoryOptions, PublishOptions
from beaconfire.model.position import StreamPosition

from .harness import HISTORY, Harness, Run


def keyed(key: str, history: HistoryOptions = HISTORY) -> PublishOptions:
    return PublishOptions(history=history, idempotency_key=key)


def versioned(version: int, version_epoch: str = "") -> PublishOptions:
    return PublishOptions(history=HISTORY, version=version, version_epoch=version_epoch)


def test_a_repeated_key_suppresses_the_publish(run: Run) -> None:
    """The second publish with a key returns the position of the first one. Nothing is stored or announced."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        first = await h.publish("a", b"1", keyed("k"))
        await h.publish("a", b"2")
        second = await h.publish("a", b"3", keyed("k"))
        await h.settle()
        assert first.suppressed == ""
        assert second.suppressed == "idempotency"
        assert second.position == first.position == StreamPosition(1, first.position.epoch)
        assert h.node.payloads("a") == [b"1", b"2"]
        assert await h.offsets("a") == [1, 2]

    run(scenario)


def test_keys_belong_to_their_channel(run: Run) -> None:
    """The same key in another channel, or another key in the same channel, is not suppressed."""

    async def scenario(h: Harness) -> None:
        outcomes = [
            await h.publish("a", options=keyed("k")),
            await h.publish("b", options=keyed("k")),
            await h.publish("a", options=keyed("l")),
        ]
        assert [outcome.suppressed for outcome in outcomes] == ["", "", ""]
        assert [outcome.position.offset for outcome in outcomes] == [1, 1, 2]

    run(scenario)


def test_channel_and_key_are_not_concatenated(run: Run) -> None:
    """Pairs of channel and key are different even if their concatenation is the same."""

    async def scenario(h: Harness) -> None:
        for channel, key in (("a", "b:c"), ("a:b", "c"), ("ab", "c"), ("a", "bc")):
            assert (await h.publish(channel, options=keyed(key))).suppressed == ""

    run(scenario)


def test_keys_work_without_history(run: Run) -> None:
    """Repetition is suppressed also in a channel without history."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        outcomes = [await h.publish("a", b"1", keyed("k", NO_HISTORY)) for _ in range(2)]
        await h.settle()
        assert [outcome.suppressed for outcome in outcomes] == ["", "idempotency"]
        assert [outcome.position for outcome in outcomes] == [StreamPosition(0, "")] * 2
        assert h.node.payloads("a") == [b"1"]

    run(scenario)


def test_keys_last_five_minutes_from_the_first_publish(run: Run) -> None:
    """Repetition does not prolong a key. After five minutes the key can be used again."""

    async def scenario(h: Harness) -> None:
        await h.publish("a", options=keyed("k"))
        await h.advance(200.0)
        assert (await h.publish("a", options=keyed("k"))).suppressed == "idempotency"
        await h.advance(95.0)
        assert (await h.publish("a", options=keyed("k"))).suppressed == "idempotency"
        await h.advance(6.0)
        again = await h.publish("a", options=keyed("k"))
        assert (again.suppressed, again.position.offset) == ("", 2)
        await h.advance(200.0)
        repeated = await h.publish("a", options=keyed("k"))
        assert (repeated.suppressed, repeated.position.offset) == ("idempotency", 2)

    run(scenario)


def test_concurrent_repetitions_publish_once(run: Run) -> None:
    """Of several concurrent publishes with the same key, one publishes, and all get its position."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        outcomes = await asyncio.gather(*(h.publish("a", b"1", keyed("k")) for _ in range(20)))
        await h.settle()
        assert sorted(outcome.suppressed for outcome in outcomes) == [""] + ["idempotency"] * 19
        assert len({outcome.position for outcome in outcomes}) == 1
        assert h.node.payloads("a") == [b"1"]

    run(scenario)


def test_an_old_version_suppresses_the_publish(run: Run) -> None:
    """A version at or below the last one is suppressed with the current position. A higher version may skip numbers."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        epoch = (await h.publish("a", b"5", versioned(5))).position.epoch
        for version in (5, 4, 1):
            outcome = await h.publish("a", b"old", versioned(version))
            assert (outcome.suppressed, outcome.position) == ("version", StreamPosition(1, epoch))
        outcome = await h.publish("a", b"9", versioned(9))
        assert (outcome.suppressed, outcome.position) == ("", StreamPosition(2, epoch))
        await h.settle()
        assert h.node.payloads("a") == [b"5", b"9"]
        assert await h.offsets("a") == [1, 2]

    run(scenario)


def test_an_unversioned_publication_does_not_change_the_version(run: Run) -> None:
    """Version 0 is always published, and the last version stays the same."""

    async def scenario(h: Harness) -> None:
        await h.publish("a", options=versioned(5))
        assert (await h.publish("a", options=versioned(0))).suppressed == ""
        outcome = await h.publish("a", options=versioned(5))
        assert (outcome.suppressed, outcome.position.offset) == ("version", 2)

    run(scenario)


def test_versions_of_different_version_epochs_are_not_compared(run: Run) -> None:
    """A publish with another version epoch is never suppressed."""

    async def scenario(h: Harness) -> None:
        steps = [(5, "", ""), (1, "x", ""), (1, "x", "version"), (2, "x", ""), (1, "y", ""), (1, "", "")]
        for version, version_epoch, suppressed in steps:
            assert (await h.publish("a", options=versioned(version, version_epoch))).suppressed == suppressed

    run(scenario)


def test_versions_use_all_64_bits(run: Run) -> None:
    """Adjacent large versions differ, so an engine must not convert them to floating point."""

    async def scenario(h: Harness) -> None:
        largest = 2**64 - 1
        steps = [(largest - 1, ""), (largest, ""), (largest, "version"), (largest - 1, "version")]
        for version, suppressed in steps:
            assert (await h.publish("a", options=versioned(version))).suppressed == suppressed

    run(scenario)


def test_the_last_version_is_kept_with_the_position(run: Run) -> None:
    """After expiry or removal of all publications, an old version is still suppressed."""

    async def scenario(h: Harness) -> None:
        await h.publish("a", options=versioned(5))
        await h.engine.broker.remove_history("a")
        assert (await h.publish("a", options=versioned(5))).suppressed == "version"
        await h.advance(61.0)
        assert (await h.publish("a", options=versioned(5))).suppressed == "version"

    run(scenario)


def test_an_expired_stream_loses_its_version(run: Run) -> None:
    """After the time to live of the position a new stream starts, with any version."""

    async def scenario(h: Harness) -> None:
        await h.publish("a", options=versioned(5))
        await h.advance(601.0)
        outcome = await h.publish("a", options=versioned(1))
        assert (outcome.suppressed, outcome.position.offset) == ("", 1)

    run(scenario)


def test_versions_need_history(run: Run) -> None:
    """Without history versions are ignored, and everything is published."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        for _ in range(2):
            assert (await h.publish("a", b"1", PublishOptions(version=1))).suppressed == ""
        await h.settle()
        assert h.node.payloads("a") == [b"1", b"1"]

    run(scenario)


def test_a_publish_suppressed_by_version_uses_its_key(run: Run) -> None:
    """Repeated with the same key, the publish returns the same position as before."""

    async def scenario(h: Harness) -> None:
        await h.publish("a", options=versioned(5))
        both = PublishOptions(history=HISTORY, version=5, idempotency_key="k")
        first = await h.publish("a", options=both)
        await h.publish("a")
        second = await h.publish("a", options=both)
        assert (first.suppressed, first.position.offset) == ("version", 1)
        assert (second.suppressed, second.position) == ("idempotency", first.position)

    run(scenario)


def test_a_suppressed_key_does_not_advance_the_version(run: Run) -> None:
    """The key is checked first. If it suppresses the publish, the version is ignored."""

    async def scenario(h: Harness) -> None:
        await h.publish("a", options=keyed("k"))
        repeated = PublishOptions(history=HISTORY, version=9, idempotency_key="k")
        assert (await h.publish("a", options=repeated)).suppressed == "idempotency"
        assert (await h.publish("a", options=versioned(3))).suppressed == ""

    run(scenario)
