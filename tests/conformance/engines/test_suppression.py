"""Publishing the same thing twice: idempotency keys and versions."""

from __future__ import annotations

import asyncio

from beaconfire.engines.port import NO_HISTORY, HistoryOptions, PublishOptions
from beaconfire.model.position import StreamPosition

from .harness import HISTORY, Harness, Run


def keyed(key: str, history: HistoryOptions = HISTORY) -> PublishOptions:
    return PublishOptions(history=history, idempotency_key=key)


def versioned(version: int, version_epoch: str = "") -> PublishOptions:
    return PublishOptions(history=HISTORY, version=version, version_epoch=version_epoch)


def test_a_repeated_key_changes_nothing(run: Run) -> None:
    """The second publish with a key returns the first one's position; nothing is stored or announced."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach("a")
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
    """The same key in another channel, or another key in the same one, is another publish."""

    async def scenario(h: Harness) -> None:
        outcomes = [
            await h.publish("a", options=keyed("k")),
            await h.publish("b", options=keyed("k")),
            await h.publish("a", options=keyed("l")),
        ]
        assert [outcome.suppressed for outcome in outcomes] == ["", "", ""]
        assert [outcome.position.offset for outcome in outcomes] == [1, 1, 2]

    run(scenario)


def test_channel_and_key_do_not_run_together(run: Run) -> None:
    """Pairs that read the same when written one after the other are different pairs."""

    async def scenario(h: Harness) -> None:
        for channel, key in (("a", "b:c"), ("a:b", "c"), ("ab", "c"), ("a", "bc")):
            assert (await h.publish(channel, options=keyed(key))).suppressed == ""

    run(scenario)


def test_keys_work_without_history(run: Run) -> None:
    """A channel that stores nothing suppresses repetition too."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach("a")
        outcomes = [await h.publish("a", b"1", keyed("k", NO_HISTORY)) for _ in range(2)]
        await h.settle()
        assert [outcome.suppressed for outcome in outcomes] == ["", "idempotency"]
        assert [outcome.position for outcome in outcomes] == [StreamPosition(0, "")] * 2
        assert h.node.payloads("a") == [b"1"]

    run(scenario)


def test_keys_last_five_minutes_from_the_first_publish(run: Run) -> None:
    """Repetition does not prolong a key, and after five minutes it publishes again."""

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
    """Of many tasks publishing with one key at once, one publishes, and all get its position."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach("a")
        outcomes = await asyncio.gather(*(h.publish("a", b"1", keyed("k")) for _ in range(20)))
        await h.settle()
        assert sorted(outcome.suppressed for outcome in outcomes) == [""] + ["idempotency"] * 19
        assert len({outcome.position for outcome in outcomes}) == 1
        assert h.node.payloads("a") == [b"1"]

    run(scenario)


def test_versions_only_rise(run: Run) -> None:
    """A version at or below the last one is suppressed with the current position; a higher one may leave gaps."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach("a")
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


def test_an_unversioned_publication_does_not_touch_the_version(run: Run) -> None:
    """Version 0 is always published, and the last version stays what it was."""

    async def scenario(h: Harness) -> None:
        await h.publish("a", options=versioned(5))
        assert (await h.publish("a", options=versioned(0))).suppressed == ""
        outcome = await h.publish("a", options=versioned(5))
        assert (outcome.suppressed, outcome.position.offset) == ("version", 2)

    run(scenario)


def test_a_version_epoch_starts_versions_afresh(run: Run) -> None:
    """Versions are compared with the last one only under the same version epoch."""

    async def scenario(h: Harness) -> None:
        steps = [(5, "", ""), (1, "x", ""), (1, "x", "version"), (2, "x", ""), (1, "y", ""), (1, "", "")]
        for version, version_epoch, suppressed in steps:
            assert (await h.publish("a", options=versioned(version, version_epoch))).suppressed == suppressed

    run(scenario)


def test_versions_are_as_large_as_the_wire_allows(run: Run) -> None:
    """Neighbouring 64-bit versions differ: they must not go through floating point anywhere."""

    async def scenario(h: Harness) -> None:
        largest = 2**64 - 1
        steps = [(largest - 1, ""), (largest, ""), (largest, "version"), (largest - 1, "version")]
        for version, suppressed in steps:
            assert (await h.publish("a", options=versioned(version))).suppressed == suppressed

    run(scenario)


def test_versions_outlive_the_publications(run: Run) -> None:
    """The last version belongs to the stream: neither expiry nor removal of publications lets an old one pass."""

    async def scenario(h: Harness) -> None:
        await h.publish("a", options=versioned(5))
        await h.engine.broker.remove_history("a")
        assert (await h.publish("a", options=versioned(5))).suppressed == "version"
        await h.advance(61.0)
        assert (await h.publish("a", options=versioned(5))).suppressed == "version"

    run(scenario)


def test_a_forgotten_stream_forgets_its_version(run: Run) -> None:
    """After the position's time to live a stream starts again, with any version."""

    async def scenario(h: Harness) -> None:
        await h.publish("a", options=versioned(5))
        await h.advance(601.0)
        outcome = await h.publish("a", options=versioned(1))
        assert (outcome.suppressed, outcome.position.offset) == ("", 1)

    run(scenario)


def test_versions_need_history(run: Run) -> None:
    """Without history a version means nothing, and everything is published."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach("a")
        for _ in range(2):
            assert (await h.publish("a", b"1", PublishOptions(version=1))).suppressed == ""
        await h.settle()
        assert h.node.payloads("a") == [b"1", b"1"]

    run(scenario)


def test_a_key_is_seen_even_if_its_version_was_old(run: Run) -> None:
    """A publish suppressed by its version has used its key: repeated, it returns the same position as before."""

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
    """Where both apply the key is looked at first, and its version counts for nothing."""

    async def scenario(h: Harness) -> None:
        await h.publish("a", options=keyed("k"))
        repeated = PublishOptions(history=HISTORY, version=9, idempotency_key="k")
        assert (await h.publish("a", options=repeated)).suppressed == "idempotency"
        assert (await h.publish("a", options=versioned(3))).suppressed == ""

    run(scenario)
