"""Policies learn about ended subscriptions and sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec import Raw

from beaconfire.base.clock import ManualClock
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timers
from beaconfire.model.events import InternalError
from beaconfire.model.identity import Identity
from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import EndedSession, EndedSubscription
from beaconfire.session import endings
from beaconfire.session.endings import BATCH_DELAY_S, BATCH_MAX, Endings
from tests.fakes.events import EventRecorder
from tests.unit.kit import NodeHarness, settle

ANN = Identity(user="ann", meta=Raw(b'{"plan":"free"}'))


class Listener(NoOpinion):
    """A policy that records endings. It can wait, or fail."""

    def __init__(self) -> None:
        self.batches: list[Sequence[EndedSubscription | EndedSession]] = []
        self.waits: asyncio.Event | None = None
        self.failure: BaseException | None = None

    @property
    def wants_endings(self) -> bool:
        return True

    async def unsubscribed(self, ended: Sequence[EndedSubscription]) -> None:
        await self._tell(ended)

    async def disconnected(self, ended: Sequence[EndedSession]) -> None:
        await self._tell(ended)

    async def _tell(self, ended: Sequence[EndedSubscription] | Sequence[EndedSession]) -> None:
        self.batches.append(ended)
        if self.waits is not None:
            await self.waits.wait()
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure


class Bench:
    """An `Endings` with a listener and a manual clock."""

    def __init__(self, timeout_s: float = 5.0) -> None:
        self.recorder = EventRecorder(expects_errors=True)
        self.timers = Timers(ManualClock())
        self.listener = Listener()
        self.background = BackgroundTasks(self._fail)
        self.endings = Endings(self.listener, timeout_s, self.timers, self.background, self.recorder)

    def _fail(self, error: BaseException) -> None:
        raise AssertionError(error)

    async def pass_delay(self) -> None:
        clock = self.timers.clock
        assert isinstance(clock, ManualClock)
        clock.advance(BATCH_DELAY_S)
        self.timers.run_due()
        await settle()


def left(number: int) -> EndedSession:
    return EndedSession(f"client{number}", ANN, 3000, "connection closed")


def test_endings_come_in_batches_and_in_order() -> None:
    """Subscriptions before the sessions they belonged to."""

    async def scenario() -> None:
        bench = Bench()
        bench.endings.disconnected(left(1))
        bench.endings.unsubscribed(EndedSubscription("client1", ANN, "news", 0))
        bench.endings.disconnected(left(2))
        await settle()
        assert bench.listener.batches == []
        await bench.pass_delay()
        assert bench.listener.batches == [[EndedSubscription("client1", ANN, "news", 0)], [left(1), left(2)]]

    asyncio.run(scenario())


def test_one_call_runs_at_a_time_with_at_most_a_thousand_endings() -> None:
    """A slow policy gets larger batches, not more calls."""

    async def scenario() -> None:
        bench = Bench()
        bench.listener.waits = asyncio.Event()
        bench.endings.disconnected(left(0))
        await bench.pass_delay()
        for number in range(1, BATCH_MAX + 3):
            bench.endings.disconnected(left(number))
        await bench.pass_delay()
        assert [len(batch) for batch in bench.listener.batches] == [1]
        bench.listener.waits.set()
        await settle()
        assert [len(batch) for batch in bench.listener.batches] == [1, BATCH_MAX, 2]
        assert [ended.client for batch in bench.listener.batches for ended in batch] == [
            f"client{number}" for number in range(BATCH_MAX + 3)
        ]

    asyncio.run(scenario())


def test_a_policy_that_raises_a_cancellation_is_told_the_rest() -> None:
    """Nobody has cancelled the call, so this is a failure like any other."""

    async def scenario() -> None:
        bench = Bench()
        bench.listener.failure = asyncio.CancelledError()
        bench.endings.unsubscribed(EndedSubscription("client1", ANN, "news", 0))
        bench.endings.disconnected(left(1))
        await bench.pass_delay()
        assert bench.listener.batches == [[EndedSubscription("client1", ANN, "news", 0)], [left(1)]]
        assert [event.where for event in bench.recorder.of(InternalError)] == ["unsubscribed"]

    asyncio.run(scenario())


@pytest.mark.parametrize("hangs", [False, True])
def test_a_batch_that_fails_or_hangs_is_reported_and_not_repeated(hangs: bool) -> None:
    """The next batch is told all the same."""

    async def scenario() -> None:
        bench = Bench(timeout_s=0.01 if hangs else 5.0)
        if hangs:
            bench.listener.waits = asyncio.Event()
        else:
            bench.listener.failure = RuntimeError("broken")
        bench.endings.disconnected(left(1))
        await bench.pass_delay()
        await bench.background.wait_idle()
        bench.listener.waits = None
        bench.endings.disconnected(left(2))
        await settle()
        await bench.pass_delay()
        assert bench.listener.batches == [[left(1)], [left(2)]]
        assert [event.where for event in bench.recorder.of(InternalError)] == ["disconnected"]

    asyncio.run(scenario())


def test_too_many_waiting_endings_drop_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is counted."""
    monkeypatch.setattr(endings, "WAITING_MAX", 2)

    async def scenario() -> None:
        bench = Bench()
        for number in range(3):
            bench.endings.disconnected(left(number))
        await bench.pass_delay()
        assert bench.listener.batches == [[left(1), left(2)]]
        assert bench.recorder.limits() == ["ended_waiting_max"]

    asyncio.run(scenario())


def test_every_way_out_is_told_once() -> None:
    """By the client, and by the end of its session. Connections that never authenticated and subscriptions that were
    refused are not told."""

    async def scenario() -> None:
        listener = Listener()
        harness = NodeHarness(policy=listener)
        client = harness.connect("ann", "news", "sport")
        harness.open_session().drop_connection()
        client.request("unsubscribe", channel="news")
        client.request("unsubscribe", channel="news")
        client.request_code("subscribe", channel="$private")
        client.drop_connection()
        harness.advance_time(1)
        await settle()
        ended = [entry for batch in listener.batches for entry in batch]
        assert ended == [
            EndedSubscription(client.id, Identity(user="ann"), "news", 0),
            EndedSubscription(client.id, Identity(user="ann"), "sport", 0),
            EndedSession(client.id, Identity(user="ann"), 3000, "connection closed"),
        ]

    asyncio.run(scenario())


def test_a_node_that_stops_tells_all_endings() -> None:
    """Also those of the sessions that the stop has ended."""

    async def scenario() -> None:
        listener = Listener()
        harness = NodeHarness(policy=listener)
        client = harness.connect("ann", "news")
        await harness.node.stop()
        assert listener.batches == [
            [EndedSubscription(client.id, Identity(user="ann"), "news", 0)],
            [EndedSession(client.id, Identity(user="ann"), 3001, "shutdown")],
        ]

    asyncio.run(scenario())
