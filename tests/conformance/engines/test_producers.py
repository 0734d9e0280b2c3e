"""Numbered publishes: each number of a producer is published exactly once, and in order."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw
from msgspec.structs import replace

from beaconfire.base.errors import NOT_AVAILABLE, CommandError, OutOfSequence
from beaconfire.engines.port import NO_HISTORY, PRODUCERS_MAX, RECEIPTS_MAX, PublishOptions, PublishOutcome
from beaconfire.model.position import StreamPosition

from .harness import HISTORY, Harness, Run


def numbered(seq: int, producer: str = "p", key: str = "", version: int = 0) -> PublishOptions:
    return PublishOptions(history=HISTORY, producer=producer, seq=seq, idempotency_key=key, version=version)


async def expected_number(h: Harness, options: PublishOptions) -> int:
    """The number that the refusal of this publish names."""
    with pytest.raises(OutOfSequence) as refused:
        await h.publish("a", options=options)
    assert f"seq: expected {refused.value.expected} of producer {options.producer!r}" in refused.value.detail
    return refused.value.expected


def test_a_repeated_number_gets_the_first_receipt(run: Run) -> None:
    """Nothing is stored or announced again, also after later numbers."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        receipts = []
        for seq in (1, 2, 3):
            await h.publish("a", b"other")
            receipts.append(await h.publish("a", b"%d" % seq, numbered(seq)))
        for seq in (3, 1, 2, 3):
            again = await h.publish("a", b"again", numbered(seq))
            assert (again.suppressed, again.position) == ("producer", receipts[seq - 1].position)
        await h.settle()
        assert h.node.payloads("a") == [b"other", b"1", b"other", b"2", b"other", b"3"]
        assert await h.offsets("a") == [1, 2, 3, 4, 5, 6]

    run(scenario)


def test_a_number_after_a_gap_is_refused(run: Run) -> None:
    """The error names the expected number. Nothing is stored or announced, and the expected number is still taken."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        assert await expected_number(h, numbered(2)) == 1
        assert (await h.publish("a", b"1", numbered(1))).suppressed == ""
        assert await expected_number(h, numbered(3)) == 2
        assert await expected_number(h, numbered(2**63 - 1)) == 2
        assert (await h.publish("a", b"2", numbered(2))).suppressed == ""
        await h.settle()
        assert h.node.payloads("a") == [b"1", b"2"]

    run(scenario)


def test_numbers_belong_to_their_producer_and_channel(run: Run) -> None:
    """Each producer starts with 1 in each channel."""

    async def scenario(h: Harness) -> None:
        for channel in ("a", "b"):
            for producer in ("p", "q", "a", "pq"):
                assert (await h.publish(channel, options=numbered(1, producer))).suppressed == ""
        assert await h.offsets("a") == [1, 2, 3, 4]

    run(scenario)


def test_concurrent_repetitions_publish_once(run: Run) -> None:
    """A producer sends several numbers without waiting, and sends each of them again."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        taken: dict[int, StreamPosition] = {}

        async def send(seq: int) -> None:
            while True:
                try:
                    outcome: PublishOutcome = await h.publish("a", b"%d" % seq, numbered(seq))
                except OutOfSequence:
                    await asyncio.sleep(0)
                else:
                    assert taken.setdefault(seq, outcome.position) == outcome.position
                    return

        await asyncio.gather(*(send(seq) for seq in (3, 1, 2, 4, 2, 1, 3, 4)))
        await h.settle()
        assert h.node.payloads("a") == [b"1", b"2", b"3", b"4"]
        assert [taken[seq].offset for seq in (1, 2, 3, 4)] == [1, 2, 3, 4]

    run(scenario)


def test_receipts_are_kept_for_the_last_numbers(run: Run) -> None:
    """An older number is still suppressed, but its position is not known any more."""

    async def scenario(h: Harness) -> None:
        count = RECEIPTS_MAX * 2 + 3
        positions = [(await h.publish("a", options=numbered(seq))).position for seq in range(1, count + 1)]
        oldest = count - RECEIPTS_MAX + 1
        for seq in (oldest, oldest + 1, count):
            assert (await h.publish("a", options=numbered(seq))).position == positions[seq - 1]
        for seq in (oldest - 1, 1):
            outcome = await h.publish("a", options=numbered(seq))
            assert (outcome.suppressed, outcome.position) == ("producer", StreamPosition(0, ""))

    run(scenario)


def test_the_producer_that_was_silent_for_the_longest_time_is_forgotten(run: Run) -> None:
    """A producer that is forgotten is refused and not published twice: it must start again."""

    async def scenario(h: Harness) -> None:
        for number in range(PRODUCERS_MAX):
            await h.publish("a", options=numbered(1, f"p{number}"))
        await h.publish("a", options=numbered(2, "p0"))
        await h.publish("a", options=numbered(1, "one more"))
        assert await expected_number(h, numbered(2, "p1")) == 1
        for producer, seq in (("p0", 3), ("p2", 2), ("one more", 2)):
            assert (await h.publish("a", options=numbered(seq, producer))).suppressed == ""

    run(scenario)


def test_numbers_are_kept_with_the_position(run: Run) -> None:
    """They survive the removal and the expiry of all publications, and end with the position."""

    async def scenario(h: Harness) -> None:
        first = await h.publish("a", options=numbered(1))
        await h.engine.broker.remove_history("a")
        assert (await h.publish("a", options=numbered(1))).position == first.position
        await h.advance(61.0)
        assert (await h.publish("a", options=numbered(1))).position == first.position
        await h.advance(601.0)
        assert await expected_number(h, numbered(2)) == 1
        assert (await h.publish("a", options=numbered(1))).suppressed == ""

    run(scenario)


def test_a_publish_that_is_suppressed_otherwise_takes_its_number(run: Run) -> None:
    """By a key or by a version: then the producer goes on with the next number."""

    async def scenario(h: Harness) -> None:
        first = await h.publish("a", options=numbered(1, key="k", version=5))
        keyed = await h.publish("a", options=numbered(2, key="k"))
        assert (keyed.suppressed, keyed.position) == ("idempotency", first.position)
        versioned = await h.publish("a", options=numbered(3, version=5))
        assert (versioned.suppressed, versioned.position) == ("version", first.position)
        again = await h.publish("a", options=numbered(3, version=9))
        assert (again.suppressed, again.position) == ("producer", first.position)
        assert (await h.publish("a", options=numbered(4, version=9))).suppressed == ""
        assert await h.offsets("a") == [1, 2]

    run(scenario)


def test_a_repeated_number_uses_neither_key_nor_version(run: Run) -> None:
    """The number is checked first."""

    async def scenario(h: Harness) -> None:
        await h.publish("a", options=numbered(1))
        await h.publish("a", options=numbered(1, key="k", version=9))
        assert (await h.publish("a", options=numbered(2, key="k", version=5))).suppressed == ""

    run(scenario)


def test_numbers_need_history(run: Run) -> None:
    """Without a stored publication there is nothing to take a number with: error 108, and nothing is announced."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        with pytest.raises(CommandError) as refused:
            await h.engine.broker.publish("a", Raw(b"1"), replace(numbered(1), history=NO_HISTORY))
        assert refused.value.code is NOT_AVAILABLE
        assert "producer" in refused.value.detail
        await h.settle()
        assert h.node.received == []

    run(scenario)
