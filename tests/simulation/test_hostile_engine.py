"""Two nodes on an engine whose every call takes 50 ms and fails in one of twenty cases, also with calls that hang and a
link that is lost: what was acknowledged is stored once, announced in order or found in history, and presence is true.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.timers import Timers
from beaconfire.engines.guard import guard_engine
from beaconfire.engines.port import Engine, HistoryOptions, PublishOptions
from beaconfire.model.events import EngineCallFailed, InternalError
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.testing import RandomCalls, SharedStore, control_calls
from tests.fakes.engine import NoCallbacks
from tests.fakes.events import EventRecorder

T = TypeVar("T")

SEEDS = max(1, int(os.environ.get("SIMULATION_SEEDS", "4000")) // 40)
HISTORY = HistoryOptions(size=1000, ttl_s=100_000.0, meta_ttl_s=1_000_000.0)
CHANNELS = ("a", "b", "c")
TIMEOUT_S = 3.0
STEP_S = 0.025
ATTEMPTS_MAX = 50
RETRY_DELAY_S = 0.2


class Node(NoCallbacks):
    """Receives announcements. After a gap or a lost link it reads what it has missed from history."""

    def __init__(self, run: HostileRun, engine: Engine) -> None:
        self.run = run
        self.engine = engine
        self.received: dict[str, list[Publication]] = {channel: [] for channel in CHANNELS}
        self.epochs: dict[str, str] = {}
        self.control: list[bytes] = []
        self.gaps = 0

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        previous: int,
        exclude: Sequence[str],
        delta: bool = False,
    ) -> None:
        """Takes the publication if it follows the last one. Others are repetitions, or show a gap for `heal`."""
        assert self.epochs.setdefault(channel, epoch) == epoch, "no stream was lost"
        if previous == self.last_offset(channel):
            self.received[channel].append(publication)
        elif publication.offset > self.last_offset(channel):
            self.gaps += 1

    def on_link_up(self, channels: Sequence[str] | None) -> None:
        self.run.start(self.attach())

    def on_control(self, message: bytes) -> None:
        self.control.append(message)

    def last_offset(self, channel: str) -> int:
        received = self.received[channel]
        return received[-1].offset if received else 0

    async def attach(self) -> None:
        """Attaches all channels, and then reads what was published before."""
        await self.run.retry(lambda: self.engine.broker.attach(CHANNELS))
        for channel in CHANNELS:
            await self.heal(channel)

    async def heal(self, channel: str) -> None:
        broker = self.engine.broker
        epoch = self.epochs.get(channel, "")
        since = StreamPosition(self.last_offset(channel), epoch)
        page = await self.run.retry(lambda: broker.history(channel, HISTORY, -1, since))
        assert page.continues, "history keeps everything"
        self.epochs.setdefault(channel, page.position.epoch)
        # Announcements may have arrived while the page was read.
        missed = [publication for publication in page.publications if publication.offset > self.last_offset(channel)]
        self.received[channel].extend(missed)


class HostileRun:
    """Two nodes, their publishers and members, all at the same time."""

    def __init__(self, seed: int, hang_rate: float, lose_links: bool) -> None:
        self.rng = random.Random(seed)
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.events = EventRecorder()
        self.calls = RandomCalls(self.timers, self.rng.random, 0.05, failure_rate=0.05, hang_rate=hang_rate)
        self.store = SharedStore(self.timers, self.rng.random)
        self.lose_links = lose_links
        self.nodes = [Node(self, self._engine()) for _ in range(2)]
        self.tasks: set[asyncio.Task[None]] = set()
        self.acknowledged: dict[str, dict[bytes, int]] = {channel: {} for channel in CHANNELS}
        self.sent: list[bytes] = []
        self.expected_members: dict[str, ClientInfo] = {}

    def _engine(self) -> Engine:
        return guard_engine(control_calls(self.store.connect(), self.calls), TIMEOUT_S, self.timers, self.events)

    def start(self, work: Awaitable[None]) -> None:
        self.tasks.add(asyncio.ensure_future(work))

    async def retry(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeats the call until it succeeds. The only error is the typed one, and it comes within the deadline."""
        clock = self.clock
        for _ in range(ATTEMPTS_MAX):
            started_s = clock.now_s()
            try:
                return await call()
            except EngineUnavailable:
                assert clock.now_s() - started_s <= TIMEOUT_S + 2 * STEP_S
                await self.timers.wait(RETRY_DELAY_S)
        raise AssertionError(f"{ATTEMPTS_MAX} calls failed in a row")

    async def run(self) -> None:
        for number, node in enumerate(self.nodes):
            await node.engine.broker.start(node)
            await node.engine.control.start(f"node{number}", node)
            self.start(node.attach())
        for number in range(6):
            self.start(self.publish_all(number))
        for number in range(12):
            self.start(self.join_and_leave(number))
        self.start(self.broadcast_all())
        await self.drive()
        for node in self.nodes:
            for channel in CHANNELS:
                self.start(node.heal(channel))
        await self.drive()
        await self.check()
        for node in self.nodes:
            await node.engine.control.stop()
            await node.engine.broker.stop()

    async def drive(self) -> None:
        """Lets time pass and delivers announcements until all work is done."""
        links = self.store.links
        while self.tasks:
            for _ in range(3):
                await asyncio.sleep(0)
            for _ in range(self.rng.randrange(4)):
                self.store.deliver_one()
            if self.lose_links and self.rng.random() < 0.01:
                link = self.rng.choice(links)
                (link.lose if self.rng.random() < 0.5 else link.lose_silently)()
                self.timers.after(self.rng.random() * 2.0, link.restore)
            self.clock.advance(STEP_S)
            self.timers.run_due()
            for task in [task for task in self.tasks if task.done()]:
                self.tasks.remove(task)
                task.result()
        self.store.deliver_all()

    async def publish_all(self, publisher: int) -> None:
        """Publishes with a key each time, so that a repetition is not a second publication."""
        broker = self.nodes[publisher % 2].engine.broker
        for number in range(20):
            channel = self.rng.choice(CHANNELS)
            data = b'"%d-%d"' % (publisher, number)
            options = PublishOptions(history=HISTORY, idempotency_key=data.decode())
            outcome = await self.retry(lambda: broker.publish(channel, Raw(data), options))  # noqa: B023 - awaited here
            self.acknowledged[channel][data] = outcome.position.offset

    async def join_and_leave(self, number: int) -> None:
        """A client that joins, stays for a while, and in half of the cases leaves."""
        presence = self.nodes[number % 2].engine.presence
        info = ClientInfo(f"user{number}", f"client{number}")
        await self.retry(lambda: presence.add("a", [info], 1000.0))
        assert await self.retry(lambda: presence.refresh("a", [info.client], 1000.0)) == []
        if number % 4 < 2:
            await self.retry(lambda: presence.remove("a", [info.client]))
        else:
            self.expected_members[info.client] = info

    async def broadcast_all(self) -> None:
        """Without repetition: a message is lost or arrives once."""
        for number in range(20):
            self.sent.append(b"%d" % number)
            try:
                await self.nodes[0].engine.control.broadcast(self.sent[-1])
            except EngineUnavailable:
                pass

    async def check(self) -> None:
        memory = self.store.memory
        for channel in CHANNELS:
            page = await memory.broker.history(channel, HISTORY, -1)
            stored = {bytes(publication.data): publication.offset for publication in page.publications}
            assert len(stored) == len(page.publications), "nothing is stored twice"
            assert self.acknowledged[channel] == stored, "each acknowledged publication is stored at its position"
            for node in self.nodes:
                received = node.received[channel]
                assert [publication.offset for publication in received] == list(range(1, len(stored) + 1))
                assert all(stored[bytes(publication.data)] == publication.offset for publication in received)
        assert await memory.presence.members("a") == self.expected_members
        for node in self.nodes:
            positions = [self.sent.index(message) for message in node.control]
            assert positions == sorted(set(positions)), "in order, and each at most once"
        assert self.events.of(InternalError) == []


def run_seeds(hang_rate: float, lose_links: bool) -> list[HostileRun]:
    runs = []
    for seed in range(SEEDS):
        hostile = HostileRun(seed, hang_rate, lose_links)
        try:
            asyncio.run(hostile.run())
        except AssertionError as failure:
            raise AssertionError(f"seed {seed}: {failure}") from failure
        runs.append(hostile)
    return runs


def test_calls_that_take_50_ms_and_fail_in_one_of_twenty_cases() -> None:
    """Nothing is lost or doubled. No announcement is missed, because the link holds and no call hangs."""
    for hostile in run_seeds(0.0, False):
        failed = hostile.events.of(EngineCallFailed)
        assert len(failed) == hostile.calls.failures > 0
        assert {event.reason for event in failed} == {"unavailable"}
        assert sum(len(node.control) for node in hostile.nodes) >= 30


def test_calls_that_hang_end_at_their_deadline() -> None:
    """As above; a call that hangs is a timeout, and is repeated as well."""
    reasons = [event.reason for hostile in run_seeds(0.05, False) for event in hostile.events.of(EngineCallFailed)]
    assert set(reasons) == {"unavailable", "timeout"}


def test_lost_links_lose_nothing() -> None:
    """After each loss, noticed or not, the node attaches again and finds everything it has missed in history."""
    runs = run_seeds(0.02, True)
    assert any(node.gaps for hostile in runs for node in hostile.nodes), "some announcements were missed"
