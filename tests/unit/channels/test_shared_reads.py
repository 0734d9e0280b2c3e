"""Subscribers of a channel that ask for history at about the same time share a read."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence

import pytest
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timers
from beaconfire.channels.namespaces import Namespaces
from beaconfire.channels.options import ChannelNameOptions
from beaconfire.channels.read_requests import SPREAD_MAX, ReadRequest, group, part_of
from beaconfire.channels.service import ChannelService
from beaconfire.channels.shared_reads import ANSWERS_PER_TURN, SharedReads
from beaconfire.engines.memory import memory_engine
from beaconfire.engines.port import Broker, HistoryOptions, HistoryPage, PublishOptions
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication
from tests.fakes.engine import ControlledBroker, ManualCalls
from tests.simulation.broker import StreamStore
from tests.unit.channels.attaching import run_scenario
from tests.unit.kit import RECOVERABLE, run, settle

HISTORY = HistoryOptions(size=10, ttl_s=100.0)
EPOCH = "epoch1"


def _call_soon(callback: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(callback)


class Harness:
    """Shared reads of the memory engine, whose calls the test controls."""

    def __init__(self, publications: int = 0, broker: Broker | None = None) -> None:
        self.calls = ManualCalls()
        self._epochs = itertools.count(1)
        self.broker = broker or memory_engine(ManualClock(), new_epoch=lambda: f"epoch{next(self._epochs)}").broker
        self.errors: list[BaseException] = []
        self.background = BackgroundTasks(self.errors.append)
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.announced: StreamPosition | None = None
        """What the hub was given last in the channel. None: no page that was kept serves a later subscriber."""
        self.reads = SharedReads(
            ControlledBroker(self.calls, self.broker),
            self.background,
            Runtime(_call_soon, self.timers, self.timers, lambda: 0.5),
            lambda channel: self.announced,
        )
        self.publish(publications)

    def publish(self, count: int = 1, channel: str = "news") -> None:
        for _ in range(count):
            run(self.broker.publish(channel, Raw(b"1"), PublishOptions(history=HISTORY)))

    def read(self, offset: int, channel: str = "news") -> asyncio.Future[HistoryPage]:
        return asyncio.ensure_future(self.reads.history(channel, HISTORY, 5, StreamPosition(offset, EPOCH)))

    async def read_all(self, positions: Sequence[StreamPosition], limit: int = 5) -> list[HistoryPage]:
        return await asyncio.gather(*(self.reads.history("news", HISTORY, limit, since) for since in positions))

    def read_alone(self, since: StreamPosition, limit: int = 5) -> HistoryPage:
        """What the engine gives this one subscriber."""
        return run(self.broker.history("news", HISTORY, limit, since))

    async def check_nothing_left(self) -> None:
        await settle()
        assert not self.reads._waiting
        assert not len(self.background)
        assert not self.errors


def at(*offsets: int, epoch: str = EPOCH) -> list[StreamPosition]:
    return [StreamPosition(offset, epoch) for offset in offsets]


def offsets(page: HistoryPage) -> list[int]:
    return [publication.offset for publication in page.publications]


# --- who shares a read


def test_those_that_ask_in_one_turn_share_one_read() -> None:
    """Each of them gets the same page."""

    async def scenario() -> None:
        harness = Harness(publications=3)
        pages = await harness.read_all(at(*[1] * 50))
        assert [offsets(page) for page in pages] == [[2, 3]] * 50
        assert (harness.reads.requests_total, harness.reads.reads_total) == (50, 1)
        await harness.check_nothing_left()

    run_scenario(scenario())


def test_those_that_ask_during_a_read_get_its_page_if_nothing_newer_is_known() -> None:
    """The hub knows that no publication is missing in the page."""

    async def scenario() -> None:
        harness = Harness(publications=3)
        harness.announced = StreamPosition(3, EPOCH)
        release = harness.calls.hold("history", after=True)
        first = harness.read(1)
        await settle()
        later = [harness.read(offset) for offset in (1, 2, 0)]
        await settle()
        release()
        assert [offsets(page) for page in await asyncio.gather(first, *later)] == [[2, 3], [2, 3], [3], [1, 2, 3]]
        assert harness.reads.reads_total == 2, "one more for the position before the page"
        await harness.check_nothing_left()

    run_scenario(scenario())


def test_those_that_ask_during_a_read_share_the_next_one() -> None:
    """The running read may have taken effect before a publication that they did not get as an announcement."""

    async def scenario() -> None:
        harness = Harness(publications=3)
        harness.calls.hold("history", after=True)
        first = harness.read(1)
        await settle()
        harness.publish()
        later = [harness.read(1) for _ in range(5)]
        await settle()
        assert harness.reads.reads_total == 1, "the next read begins when the running one has ended"
        harness.calls.release("history", after=True)
        assert offsets(await first) == [2, 3]
        assert [offsets(await page) for page in later] == [[2, 3, 4]] * 5
        assert harness.reads.reads_total == 2
        await harness.check_nothing_left()

    run_scenario(scenario())


def test_channels_do_not_wait_for_each_other() -> None:
    """A read that hangs delays only its own channel."""

    async def scenario() -> None:
        harness = Harness(publications=1)
        release = harness.calls.hold("history")
        first = harness.read(0)
        await settle()
        harness.calls.hold("history")()
        assert offsets(await harness.read(0, channel="sport")) == []
        assert not first.done()
        release()
        assert offsets(await first) == [1]

    run_scenario(scenario())


def test_requests_for_the_position_and_for_the_latest_publication_share_reads_too() -> None:
    """With equal arguments."""

    async def scenario() -> None:
        harness = Harness(publications=3)
        history = harness.reads.history
        pages = await asyncio.gather(
            *(history("news", HISTORY, 0) for _ in range(3)),
            *(history("news", HISTORY, 1, reverse=True) for _ in range(3)),
        )
        assert [offsets(page) for page in pages] == [[]] * 3 + [[3]] * 3
        assert {page.position for page in pages} == set(at(3))
        assert all(page.continues for page in pages)
        assert harness.reads.reads_total == 2

    run_scenario(scenario())


def test_page_serves_those_that_ask_a_moment_later() -> None:
    """Without a call of the engine, unless the hub was given a publication after the page."""

    async def scenario() -> None:
        harness = Harness(publications=3)
        harness.announced = StreamPosition(3, EPOCH)
        for since, expected in ((1, [2, 3]), (1, [2, 3]), (2, [3])):
            assert offsets(await harness.read(since)) == expected
        assert (harness.reads.requests_total, harness.reads.reads_total) == (3, 1)
        harness.publish()
        harness.announced = StreamPosition(4, EPOCH)
        assert offsets(await harness.read(1)) == [2, 3, 4]
        assert harness.reads.reads_total == 2
        await harness.check_nothing_left()

    run_scenario(scenario())


def test_removed_history_is_read_again() -> None:
    """Whatever was read before the removal."""

    async def scenario() -> None:
        harness = Harness(publications=3)
        harness.announced = StreamPosition(3, EPOCH)
        namespaces = Namespaces(RECOVERABLE, {}, ChannelNameOptions(), 3600.0)
        channels = ChannelService(harness.broker, memory_engine(harness.clock).presence, harness.reads)
        namespace = namespaces.resolve("news")

        async def read() -> list[int]:
            return offsets(await channels.read_for_subscriber("news", namespace, 5, StreamPosition(1, EPOCH)))

        assert await read() == [2, 3]
        await channels.remove_history("news", namespace)
        harness.reads.forget("news")
        assert await read() == []

    run_scenario(scenario())


def test_page_of_a_read_during_the_removal_is_not_kept() -> None:
    """The read may have begun before the removal, and end after the node was told."""

    async def scenario() -> None:
        harness = Harness(publications=3)
        harness.announced = StreamPosition(3, EPOCH)
        release = harness.calls.hold("history", after=True)
        running = asyncio.ensure_future(harness.read(1))
        await settle()
        await harness.broker.remove_history("news")
        harness.reads.forget("news")
        release()
        assert offsets(await running) == [2, 3]
        assert offsets(await harness.read(1)) == []

    run_scenario(scenario())


# --- what each of them gets


def test_different_positions_share_a_read_from_the_lowest_one() -> None:
    """Each subscriber gets as many publications as alone, although the lowest position is far behind."""

    async def scenario() -> None:
        harness = Harness(publications=10)
        pages = await harness.read_all(at(9, 2, 4, 10), limit=3)
        assert [offsets(page) for page in pages] == [[10], [3, 4, 5], [5, 6, 7], []]
        assert all(page.continues for page in pages)
        assert harness.reads.reads_total == 1

    run_scenario(scenario())


@pytest.mark.parametrize("seed", range(100))
def test_each_gets_what_the_engine_would_give_to_it_alone(seed: int) -> None:
    """Whatever the positions: before the oldest publication, above the top, of another epoch, with offsets left out."""

    async def scenario() -> None:
        rng = random.Random(seed)
        store = StreamStore(rng if rng.random() < 0.7 else None)
        harness = Harness(publications=rng.randrange(25), broker=store.connect())
        if rng.random() < 0.2:
            await harness.broker.remove_history("news")
        epoch = store.position("news").epoch
        limit, reads = rng.randrange(1, 12), 0
        harness.announced = store.position("news")
        for _ in range(3):  # the pages of earlier rounds serve the later ones
            positions = [
                StreamPosition(rng.randrange(45), rng.choice((epoch, epoch, epoch, "", "other")))
                for _ in range(rng.randrange(1, 8))
            ]
            assert await harness.read_all(positions, limit) == [harness.read_alone(each, limit) for each in positions]
            reads += len(set(positions))
        assert harness.reads.reads_total <= reads
        await harness.check_nothing_left()

    run_scenario(scenario())


def test_positions_before_the_oldest_publication_are_read_alone() -> None:
    """Offsets may be left out, so the page does not tell which of them is the predecessor of its first publication."""

    async def scenario() -> None:
        harness = Harness(publications=15)  # 6 is the oldest
        pages = await harness.read_all(at(3, 4, 5, 6, 7))
        assert [page.continues for page in pages] == [False, False, True, True, True]
        assert harness.reads.reads_total == 3, "one for all, and one for each of 4 and 5"

    run_scenario(scenario())


def test_only_the_engine_judges_positions_of_an_earlier_epoch() -> None:
    """After a failover, the history continues positions of the earlier epoch up to an offset that no page names."""
    page = HistoryPage([Publication(offset=8)], StreamPosition(8, "new"), True)
    low, high = (ReadRequest(HISTORY, 5, since, False) for since in at(6, 7, epoch="old"))
    assert part_of(page, low, low) == page
    assert part_of(page, low, high) is None


def test_position_above_the_top_does_not_belong_to_the_history() -> None:
    """Whatever the lowest position is."""
    page = HistoryPage([Publication(offset=8)], StreamPosition(8, EPOCH), True)
    low, high = (ReadRequest(HISTORY, 5, since, False) for since in at(7, 9))
    assert part_of(page, low, high) == HistoryPage([], page.position, False)


def test_positions_that_are_far_apart_do_not_share_a_read() -> None:
    """So one page is never much larger than what one subscriber may get."""
    requests = [ReadRequest(HISTORY, 5, since, False) for since in at(SPREAD_MAX + 1, 0, SPREAD_MAX, SPREAD_MAX + 2)]
    assert [[request.offset for request in each] for each in group(requests)] == [
        [0, SPREAD_MAX],
        [SPREAD_MAX + 1, SPREAD_MAX + 2],
    ]


def test_requests_of_different_kinds_do_not_share_a_read() -> None:
    """A read has one limit, one direction, one epoch and one set of options."""
    [since, other_epoch] = [*at(1), *at(1, epoch="other")]
    requests = [
        ReadRequest(HISTORY, 5, since, False),
        ReadRequest(HISTORY, 6, since, False),
        ReadRequest(HISTORY, 5, other_epoch, False),
        ReadRequest(HISTORY, 5, None, False),
        ReadRequest(HISTORY, 5, None, True),
        ReadRequest(HistoryOptions(size=9, ttl_s=1.0), 5, since, False),
    ]
    assert sorted(map(len, group(requests))) == [1] * len(requests)


# --- failures and cancellation


def test_failed_read_fails_all_that_share_it_and_nobody_else() -> None:
    """Those that ask later get the next read. Nobody waits for a repetition: the clients repeat their commands."""

    async def scenario() -> None:
        harness = Harness(publications=3)
        release = harness.calls.hold("history")
        error = EngineUnavailable("no link")
        harness.calls.fail_next("history", error)
        failed = [harness.read(offset) for offset in (1, 2, 2)]
        await settle()
        later = harness.read(1)
        release()
        assert await asyncio.gather(*failed, return_exceptions=True) == [error] * 3
        assert offsets(await later) == [2, 3]
        await harness.check_nothing_left()

    run_scenario(scenario())


def test_cancelled_subscriber_does_not_disturb_the_others() -> None:
    """They get the page that all of them waited for."""

    async def scenario() -> None:
        harness = Harness(publications=3)
        harness.calls.hold("history")
        cancelled, other = harness.read(1), harness.read(1)
        await settle()
        cancelled.cancel()
        harness.calls.release("history")
        assert offsets(await other) == [2, 3]
        assert cancelled.cancelled()
        await harness.check_nothing_left()

    run_scenario(scenario())


def test_nothing_is_read_for_subscribers_that_wait_no_more() -> None:
    """They were cancelled before their read has begun."""

    async def scenario() -> None:
        harness = Harness(publications=3)
        harness.calls.hold("history")
        first = harness.read(1)
        await settle()
        second = harness.read(1)
        await settle()
        second.cancel()
        harness.calls.release("history")
        await first
        await harness.check_nothing_left()
        assert harness.reads.reads_total == 1

    run_scenario(scenario())


@pytest.mark.parametrize("turns", [1, 20])
def test_nobody_waits_for_ever_if_the_node_drops_its_work(turns: int) -> None:
    """Those of the running read and those of the next one are cancelled."""

    async def scenario() -> None:
        harness = Harness(publications=3)
        harness.calls.hold("history")
        running = harness.read(1)
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting = harness.read(2)
        await asyncio.sleep(0)
        harness.background.cancel()
        await settle()
        assert running.cancelled()
        assert waiting.cancelled()
        await harness.check_nothing_left()

    run_scenario(scenario())


@pytest.mark.parametrize("fails", [False, True])
def test_few_subscribers_are_answered_in_one_turn(fails: bool) -> None:
    """Each of them encodes a reply, so thousands of them would keep the event loop busy."""

    async def scenario() -> None:
        harness = Harness(publications=3)
        if fails:
            harness.calls.fail_next("history", EngineUnavailable("no link"))
        asked = [(number % 3, channel) for number in range(3 * ANSWERS_PER_TURN) for channel in ("news", "sport")]
        pages = [harness.read(offset, channel) for offset, channel in asked]
        done = [0]
        while done[-1] < len(pages):
            await asyncio.sleep(0)
            done.append(sum(page.done() for page in pages))
        assert max(after - before for before, after in itertools.pairwise(done)) <= ANSWERS_PER_TURN
        await _retrieve(pages)

    run_scenario(scenario())


async def _retrieve(futures: Sequence[Awaitable[object]]) -> None:
    await asyncio.gather(*futures, return_exceptions=True)
