"""What moves with a stream: after a move, clients and publishers notice nothing."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.base.errors import OutOfSequence
from beaconfire.engines.port import IDEMPOTENCY_TTL_S, NO_HISTORY, PublishOptions
from beaconfire.engines.transfer import SLICE_CHANNELS
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo

from .harness import Pair, Run

INFO = ClientInfo("user", "client", Raw(b'{"a":1}'), Raw(b"\x00\xff"))


async def check_equal(pair: Pair) -> None:
    report = await pair.copy.verify()
    assert report.listed == []
    assert report.is_equal
    assert report.old == report.new


def test_publications_move_with_all_parts(run: Run) -> None:
    """Data, info, tags, offsets and epochs are the same in the new engine."""

    async def scenario(pair: Pair) -> None:
        await pair.old.publish("a", b"one", info=INFO, tags={"k": "v"})
        await pair.old.publish("a", b"", info=ClientInfo("", "c"))
        await pair.old.publish("b", b"\x00\xfe")
        await pair.move()
        for channel in "ab":
            assert await pair.new.read(channel) == await pair.old.read(channel)
        await check_equal(pair)

    run(scenario)


def test_a_client_continues_without_a_gap(run: Run) -> None:
    """A position of the old engine is continued by the new one, and offsets go on in the same epoch."""

    async def scenario(pair: Pair) -> None:
        for number in range(5):
            position = (await pair.old.publish("a", b"%d" % number)).position
        await pair.move()
        assert (await pair.new.publish("a", b"next")).position == StreamPosition(6, position.epoch)
        page = await pair.new.read("a", StreamPosition(3, position.epoch))
        assert page.continues
        assert [bytes(each.data) for each in page.publications] == [b"3", b"4", b"next"]

    run(scenario)


def test_publications_keep_their_age(run: Run) -> None:
    """What has lived for 50 of 60 seconds expires 10 seconds after the move. The position is kept as long as before."""

    async def scenario(pair: Pair) -> None:
        position = (await pair.old.publish("a", b"old")).position
        pair.advance(50)
        await pair.old.publish("a", b"new")
        await pair.move()
        pair.advance(11)
        assert [bytes(each.data) for each in (await pair.new.read("a")).publications] == [b"new"]
        await check_equal(pair)
        pair.advance(100)
        page = await pair.new.read("a")
        assert (list(page.publications), page.position) == ([], StreamPosition(2, position.epoch))

    run(scenario)


def test_an_expired_stream_does_not_move(run: Run) -> None:
    """A stream whose position has expired starts again at the new engine, as at the old one."""

    async def scenario(pair: Pair) -> None:
        await pair.old.publish("a")
        pair.advance(601)
        await pair.move()
        assert await pair.new.image("a") is None
        await check_equal(pair)

    run(scenario)


def test_limits_of_history_move(run: Run) -> None:
    """Publications that the old engine has dropped are not in the new one, and its size is kept by the next publish."""

    async def scenario(pair: Pair) -> None:
        for number in range(50):
            await pair.old.publish("a", b"%d" % number, history={"size": 3})
        await pair.move()
        assert [each.offset for each in (await pair.new.read("a")).publications] == [48, 49, 50]
        await pair.new.publish("a", b"next", history={"size": 3})
        assert [each.offset for each in (await pair.new.read("a")).publications] == [49, 50, 51]

    run(scenario)


def test_a_removed_history_moves(run: Run) -> None:
    """The position of a channel without publications moves, and publications go on after it."""

    async def scenario(pair: Pair) -> None:
        position = (await pair.old.publish("a")).position
        await pair.old.engine.broker.remove_history("a")
        await pair.move()
        assert list((await pair.new.read("a")).publications) == []
        assert (await pair.new.publish("a")).position == StreamPosition(2, position.epoch)

    run(scenario)


def test_an_unused_position_moves(run: Run) -> None:
    """A subscriber may hold the position of a channel in which nothing was ever published."""

    async def scenario(pair: Pair) -> None:
        position = (await pair.old.read("a")).position
        await pair.move()
        assert (await pair.new.read("a", position)).continues

    run(scenario)


def test_idempotency_keys_move(run: Run) -> None:
    """A publish that is repeated at the new engine gets the first position, until the five minutes are over."""

    async def scenario(pair: Pair) -> None:
        first = await pair.old.publish("a", b"1", idempotency_key="k")
        await pair.old.publish("a", b"2")
        pair.advance(100)
        await pair.move()
        await check_equal(pair)
        again = await pair.new.publish("a", b"1", idempotency_key="k")
        assert (again.position, again.suppressed) == (first.position, "idempotency")
        pair.advance(IDEMPOTENCY_TTL_S - 99)
        assert (await pair.new.publish("a", b"1", idempotency_key="k")).suppressed == ""

    run(scenario)


def test_versions_move(run: Run) -> None:
    """A version that is not above the last one of the old engine is suppressed at the new one."""

    async def scenario(pair: Pair) -> None:
        for number in (7, 2**64 - 1):
            await pair.old.publish("a", version=number, version_epoch="e")
        await pair.move()
        assert (await pair.new.publish("a", version=8, version_epoch="e")).suppressed == "version"
        assert (await pair.new.publish("a", version=1, version_epoch="f")).suppressed == ""

    run(scenario)


def test_numbers_of_producers_move(run: Run) -> None:
    """A repeated number gets its receipt, and the next one is expected."""

    async def scenario(pair: Pair) -> None:
        positions = [(await pair.old.publish("a", producer="p", seq=seq)).position for seq in (1, 2, 3)]
        await pair.old.publish("a", producer="q", seq=1)
        await pair.move()
        again = await pair.new.publish("a", producer="p", seq=2)
        assert (again.position, again.suppressed) == (positions[1], "producer")
        with pytest.raises(OutOfSequence) as refused:
            await pair.new.publish("a", producer="p", seq=5)
        assert refused.value.expected == 4
        assert (await pair.new.publish("a", producer="p", seq=4)).suppressed == ""
        assert (await pair.new.publish("a", producer="q", seq=2)).suppressed == ""

    run(scenario)


def test_many_channels_move_in_slices(run: Run) -> None:
    """Every channel is copied once, and the listener is told."""

    async def scenario(pair: Pair) -> None:
        count = 2 * SLICE_CHANNELS + 7
        for number in range(count):
            await pair.old.publish(f"channel-{number}", b"%d" % number)
        report = await pair.copy.copy()
        assert (report.channels, report.copied, report.removed) == (count, count, 0)
        copied = [(channels, total) for phase, channels, total in pair.listener.calls if phase == "copy"]
        assert copied == [(SLICE_CHANNELS, count), (2 * SLICE_CHANNELS, count), (count, count)]
        await check_equal(pair)

    run(scenario)


def test_a_second_copy_writes_only_what_has_changed(run: Run) -> None:
    """So a copy that was interrupted is resumed by running it again."""

    async def scenario(pair: Pair) -> None:
        for channel in "abcd":
            await pair.old.publish(channel)
        await pair.copy.copy()
        assert (await pair.copy.copy()).copied == 0
        await pair.old.publish("b")
        await pair.old.engine.broker.remove_history("c")
        report = await pair.copy.copy()
        assert (report.channels, report.copied) == (4, 2)
        await check_equal(pair)

    run(scenario)


def test_what_the_old_engine_has_not_is_removed(run: Run) -> None:
    """The new engine keeps exactly what the old one keeps, also if it was used before."""

    async def scenario(pair: Pair) -> None:
        await pair.old.publish("a")
        await pair.new.publish("a", b"other", idempotency_key="k")
        await pair.new.publish("b", idempotency_key="k")
        assert (await pair.copy.copy()).removed == 1
        await check_equal(pair)
        assert await pair.new.image("b") is None

    run(scenario)


def test_a_tail_continues_a_stream(run: Run) -> None:
    """An image above a position appends, with keys, numbers, versions and the limits of the history."""

    async def scenario(pair: Pair) -> None:
        for number in range(3):
            await pair.old.publish("a", b"%d" % number, producer="p", seq=number + 1)
        await pair.copy.copy()
        await pair.old.publish("a", b"3", producer="p", seq=4, idempotency_key="k", version=5)
        await pair.old.publish("a", b"4", history={"size": 2, "ttl_s": 20.0})
        tail = await pair.old.image("a", 3)
        assert tail is not None
        assert [each.offset for each in tail.publications] == [4, 5]
        assert list(await pair.new.transfer.load([tail])) == []
        await check_equal(pair)
        assert list(await pair.new.transfer.load([tail])) == ["a"]

    run(scenario)


def test_a_tail_needs_its_predecessor(run: Run) -> None:
    """A stream with another position or epoch is not changed, and is named."""

    async def scenario(pair: Pair) -> None:
        for channel in "abc":
            await pair.old.publish(channel)
        await pair.copy.copy()
        for channel in "abc":
            for _ in range(2):
                await pair.old.publish(channel)
        await pair.new.transfer.remove(["b"])
        tails = [await pair.old.image("a", 2), await pair.old.image("b", 1), await pair.old.image("c", 1)]
        before = await pair.new.image("a")
        assert list(await pair.new.transfer.load([tail for tail in tails if tail is not None])) == ["a", "b"]
        assert await pair.new.image("a") == before
        assert await pair.new.image("c") is not None

    run(scenario)


def test_a_loaded_stream_is_live(run: Run) -> None:
    """Loading announces nothing. Afterwards publications are announced, and name their predecessor."""

    async def scenario(pair: Pair) -> None:
        await pair.new.engine.broker.attach(["a"])
        await pair.old.publish("a")
        await pair.move()
        assert pair.new.node.received == []
        await pair.new.publish("a", b"next")
        await pair.new.node.wait_received(1)
        assert [(each.publication.offset, each.previous) for each in pair.new.node.publications] == [(2, 1)]

    run(scenario)


def test_a_loaded_stream_expires_and_is_freed(run: Run) -> None:
    """The new engine removes what has come from the old one as it removes its own."""

    async def scenario(pair: Pair) -> None:
        for _ in range(3):
            await pair.old.publish("a", idempotency_key="k")
        await pair.move()
        pair.advance(700)
        while pair.new.engine.sweep():
            pass
        assert pair.new.engine.statistics().history_publications == 0
        assert await pair.new.image("a") is None

    run(scenario)


def test_exporting_changes_nothing(run: Run) -> None:
    """A channel without a stream gets none, and no expiry is prolonged."""

    async def scenario(pair: Pair) -> None:
        assert await pair.old.image("a") is None
        await pair.old.publish("b", history={"meta_ttl_s": 60.0})
        before = await pair.old.image("b")
        pair.advance(30)
        assert await pair.old.image("b") == before
        assert (await pair.old.transfer.channels("", 10)).channels == ["b"]

    run(scenario)


def test_keys_of_channels_without_history(run: Run) -> None:
    """A channel that has only idempotency keys moves if the engine keeps its keys where it keeps its streams."""

    async def scenario(pair: Pair) -> None:
        options = PublishOptions(history=NO_HISTORY, idempotency_key="k")
        await pair.old.engine.broker.publish("a", Raw(b"1"), options)
        image = await pair.old.image("a")
        await pair.move()
        assert await pair.new.image("a") == image
        await check_equal(pair)

    run(scenario)
