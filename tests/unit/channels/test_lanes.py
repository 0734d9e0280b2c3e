"""Changes of presence and announcements of joins and leaves, with an engine that is slow or fails."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from beaconfire.base.backoff import Backoff
from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timers
from beaconfire.channels import lanes
from beaconfire.channels.lanes import ANNOUNCE_TRIES_MAX, BATCH_MAX, Lanes
from beaconfire.engines.memory import memory_engine
from beaconfire.engines.port import MemberChange
from beaconfire.model.events import WorkDropped
from beaconfire.model.publication import ClientInfo
from tests.fakes.engine import ControlledBroker, ControlledPresence, ManualCalls
from tests.fakes.events import EventRecorder
from tests.unit.kit import run, settle

TTL_S = 60.0


class LanesHarness:
    """Lanes with an engine that the test controls."""

    def __init__(self, suspends: bool = True) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.calls = ManualCalls()
        self.errors: list[BaseException] = []
        self.recorder = EventRecorder()
        self.background = BackgroundTasks(self.errors.append, suspends)
        self.memory = memory_engine(self.clock)
        self.lanes = Lanes(
            ControlledBroker(self.calls, self.memory.broker),
            ControlledPresence(self.calls, self.memory.presence),
            self.timers,
            self.background,
            Backoff(lambda: 0.5),
            self.recorder,
            TTL_S,
        )

    def advance_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()

    def start_add(self, client: str, conn_info: str = "") -> asyncio.Future[None]:
        return asyncio.ensure_future(self.lanes.add("news", info(client)))

    def present(self) -> set[str]:
        return set(run(self.memory.presence.members("news")))


def info(client: str, user: str = "ann") -> ClientInfo:
    return ClientInfo(user, client)


def join(client: str) -> MemberChange:
    return MemberChange(True, info(client))


def leave(client: str) -> MemberChange:
    return MemberChange(False, info(client))


def run_scenario(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 5))


# --- an engine that never suspends


def test_engine_that_never_suspends_has_no_lane() -> None:
    """Each change is one call, made at once."""
    harness = LanesHarness(suspends=False)
    run(harness.lanes.add("news", info("c1")))
    harness.lanes.announce("news", join("c1"))
    harness.lanes.replace("news", info("c1", "bob"))
    harness.lanes.remove("news", "c1", leave("c1"))
    harness.lanes.remove("news", "c2")
    assert harness.calls.completed == [
        "presence_add news c1",
        "announce news join c1",
        "presence_add news c1",
        "presence_remove news c1",
        "announce news leave c1",
        "presence_remove news c2",
    ]
    assert len(harness.lanes) == len(harness.timers) == 0


def test_failed_changes_of_an_engine_that_never_suspends_are_repeated() -> None:
    """In their order. A newer entry of the client replaces its removal."""
    harness = LanesHarness(suspends=False)
    harness.calls.fail_next("presence_remove", OSError("lost"))
    harness.calls.fail_next("announce", OSError("lost"))
    harness.lanes.remove("news", "c1", leave("c1"))
    harness.lanes.announce("news", join("c2"))
    assert [str(error) for error in harness.errors] == ["lost", "lost"]
    assert harness.calls.completed == []
    run(harness.lanes.add("news", info("c3")))
    harness.advance_time(0.2)
    assert harness.calls.completed == [
        "presence_add news c3",
        "presence_remove news c1",
        "announce news leave c1 join c2",
    ]
    harness.calls.fail_next("presence_remove", OSError("lost"))
    harness.lanes.remove("news", "c3")
    run(harness.lanes.add("news", info("c3")))
    harness.advance_time(10)
    assert harness.present() == {"c3"}
    assert len(harness.lanes) == len(harness.timers) == 0


def test_refused_add_of_an_engine_that_never_suspends_raises() -> None:
    """The caller removes the client."""
    harness = LanesHarness(suspends=False)
    harness.calls.fail_next("presence_add", EngineUnavailable("lost"))
    with pytest.raises(EngineUnavailable):
        run(harness.lanes.add("news", info("c1")))


# --- order


def test_removal_does_not_overtake_an_addition() -> None:
    """Nor the other way round: of several changes of one client the last one counts."""

    async def scenario() -> None:
        harness = LanesHarness()
        harness.calls.hold("presence_add")
        adding = harness.start_add("c1")
        await settle()
        harness.lanes.remove("news", "c1", leave("c1"))
        again = harness.start_add("c1")
        await settle()
        harness.lanes.remove("news", "c1")
        last = harness.start_add("c1")
        await settle()
        harness.calls.release("presence_add")
        await asyncio.gather(adding, again, last)
        await harness.background.wait_idle()
        assert harness.calls.completed == ["presence_add news c1", "presence_add news c1", "announce news leave c1"]
        assert harness.present() == {"c1"}
        assert len(harness.lanes) == 0

    run_scenario(scenario())


def test_unsubscribe_and_subscribe_leave_the_client_present() -> None:
    """With a slow removal. The leave is announced before the next join."""

    async def scenario() -> None:
        harness = LanesHarness()
        await harness.lanes.add("news", info("c1"))
        harness.lanes.announce("news", join("c1"))
        await settle()
        harness.calls.hold("presence_remove")
        harness.lanes.remove("news", "c1", leave("c1"))
        await settle()
        adding = harness.start_add("c1")
        await settle()
        assert not adding.done()
        harness.calls.release("presence_remove")
        await adding
        harness.lanes.announce("news", join("c1"))
        await harness.background.wait_idle()
        assert harness.present() == {"c1"}
        announced = [call for call in harness.calls.completed if call.startswith("announce")]
        assert announced == ["announce news join c1", "announce news leave c1", "announce news join c1"]

    run_scenario(scenario())


def test_newer_entry_serves_the_subscriber_that_waits() -> None:
    """The identity of the client was refreshed meanwhile."""

    async def scenario() -> None:
        harness = LanesHarness()
        harness.calls.hold("presence_add")
        first = harness.start_add("c1")
        await settle()
        second = harness.start_add("c2")
        await settle()
        harness.lanes.replace("news", info("c2", "bob"))
        harness.calls.release("presence_add")
        await asyncio.gather(first, second)
        assert run(harness.memory.presence.members("news"))["c2"].user == "bob"

    run_scenario(scenario())


def test_channels_do_not_wait_for_each_other() -> None:
    """Each channel has its own lane."""

    async def scenario() -> None:
        harness = LanesHarness()
        let_the_first_continue = harness.calls.hold("presence_add")
        first = harness.start_add("c1")
        await settle()
        harness.calls.hold("presence_add")
        harness.calls.release("presence_add")
        await harness.lanes.add("other", info("c1"))
        assert not first.done()
        let_the_first_continue()
        await first

    run_scenario(scenario())


def test_many_changes_of_a_slow_engine_take_a_few_calls() -> None:
    """What comes during a batch forms the next batch, and a call has at most 250 clients."""

    async def scenario() -> None:
        harness = LanesHarness()
        harness.calls.hold("presence_add")
        adding = [harness.start_add(f"c{number}") for number in range(1000)]
        await settle()
        harness.calls.release("presence_add")
        await asyncio.gather(*adding)
        harness.calls.hold("announce")
        for number in range(1000):
            harness.lanes.announce("news", join(f"c{number}"))
        harness.calls.release("announce")
        await harness.background.wait_idle()
        sizes = [len(call.split()) - 2 for call in harness.calls.completed if call.startswith("presence_add")]
        assert sum(sizes) == len(harness.present()) == 1000
        assert max(sizes) <= BATCH_MAX
        assert len(harness.calls.completed) <= 12

    run_scenario(scenario())


@pytest.mark.parametrize("suspends", [True, False])
def test_announcements_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch, suspends: bool) -> None:
    """In all channels together, also while the engine hangs. Further ones are dropped and counted."""

    async def scenario() -> None:
        monkeypatch.setattr(lanes, "ANNOUNCEMENTS_MAX", 3)
        harness = LanesHarness(suspends)
        harness.calls.fail_next("announce", EngineUnavailable("lost"))
        harness.lanes.announce("news", join("c1"))
        await settle()
        for number in range(2, 6):
            harness.lanes.announce("news", join(f"c{number}"))
        harness.lanes.remove("news", "c5", leave("c5"))
        if suspends:  # otherwise a channel without failures announces at once
            harness.lanes.announce("sport", join("c6"))
        await settle()
        assert harness.recorder.limits() == ["announcements_waiting_max"] * (4 if suspends else 3)
        harness.advance_time(1)
        await settle()
        assert harness.calls.completed[-1] == "announce news join c1 join c2 join c3"
        assert len(harness.lanes) == 0
        harness.lanes.announce("news", join("c7"))
        await settle()
        assert harness.calls.completed[-1] == "announce news join c7"

    run_scenario(scenario())


# --- failures


def test_failed_removal_is_repeated_until_it_succeeds() -> None:
    """With a growing delay. An EngineError is not reported by the lane."""

    async def scenario() -> None:
        harness = LanesHarness()
        await harness.lanes.add("news", info("c1"))
        for delay_s in (0.0, 0.2, 0.4, 0.8):
            harness.calls.fail_next("presence_remove", EngineUnavailable("lost"))
            if not delay_s:
                harness.lanes.remove("news", "c1", leave("c1"))
            harness.advance_time(delay_s)
            await settle()
            assert harness.present() == {"c1"}
        harness.advance_time(2)
        await settle()
        assert harness.present() == set()
        assert harness.calls.completed[1:] == ["announce news leave c1", "presence_remove news c1"]
        assert len(harness.lanes) == len(harness.timers) == 0

    run_scenario(scenario())


def test_removal_is_dropped_when_the_entry_has_expired() -> None:
    """Then there is nothing to remove."""

    async def scenario() -> None:
        harness = LanesHarness()
        harness.calls.fail_next("presence_remove", EngineUnavailable("lost"))
        harness.lanes.remove("news", "c1")
        await settle()
        harness.calls.fail_next("presence_remove", EngineUnavailable("lost"))
        harness.advance_time(TTL_S)
        await settle()
        assert len(harness.lanes) == len(harness.timers) == 0
        assert harness.calls.completed == []

    run_scenario(scenario())


def test_refused_addition_is_taken_back() -> None:
    """The call may have taken effect. Only the subscribers of the failed call are refused."""

    async def scenario() -> None:
        harness = LanesHarness()
        harness.calls.fail_next("presence_add", EngineUnavailable("lost"))
        with pytest.raises(EngineUnavailable):
            await harness.lanes.add("news", info("c1"))
        await harness.lanes.add("news", info("c2"))
        harness.advance_time(1)
        await settle()
        assert harness.calls.completed == ["presence_add news c2", "presence_remove news c1"]
        assert len(harness.lanes) == len(harness.timers) == 0

    run_scenario(scenario())


def test_newer_changes_are_made_while_failed_ones_wait() -> None:
    """A newer change of the same client replaces the failed one."""

    async def scenario() -> None:
        harness = LanesHarness()
        harness.calls.fail_next("presence_remove", EngineUnavailable("lost"))
        harness.lanes.remove("news", "c1")
        await settle()
        await harness.lanes.add("news", info("c1"))
        await settle()
        assert harness.present() == {"c1"}
        assert len(harness.lanes) == len(harness.timers) == 0
        harness.calls.fail_next("presence_add", EngineUnavailable("lost"))
        harness.calls.hold("presence_add")
        harness.lanes.replace("news", info("c1", "bob"))
        await settle()
        harness.lanes.remove("news", "c1")
        harness.calls.release("presence_add")
        await harness.background.wait_idle()
        assert harness.present() == set()

    run_scenario(scenario())


def test_failed_announcements_keep_their_order() -> None:
    """Those after them wait."""

    async def scenario() -> None:
        harness = LanesHarness()
        harness.calls.fail_next("announce", EngineUnavailable("lost"))
        harness.lanes.announce("news", join("c1"))
        await settle()
        harness.lanes.announce("news", leave("c1"))
        await harness.lanes.add("news", info("c2"))
        assert harness.calls.completed == ["presence_add news c2"]
        harness.advance_time(1)
        await settle()
        assert harness.calls.completed[1:] == ["announce news join c1 leave c1"]

    run_scenario(scenario())


def test_announcements_that_fail_too_often_are_dropped_and_reported() -> None:
    """Later announcements are made."""

    async def scenario() -> None:
        harness = LanesHarness()
        for number in range(ANNOUNCE_TRIES_MAX):
            harness.calls.fail_next("announce", EngineUnavailable("lost"))
            if not number:
                harness.lanes.announce("news", join("c1"))
            else:
                harness.advance_time(10)
            await settle()
        assert [(event.work, event.count) for event in harness.recorder.of(WorkDropped)] == [("announcements", 1)]
        harness.lanes.announce("news", leave("c1"))
        await settle()
        assert harness.calls.completed == ["announce news leave c1"]
        assert len(harness.lanes) == len(harness.timers) == 0

    run_scenario(scenario())


def test_waits_until_no_change_is_left() -> None:
    """Also for changes that wait for their repetition."""

    async def scenario() -> None:
        harness = LanesHarness()
        await harness.lanes.wait_until_empty()
        harness.calls.fail_next("presence_remove", EngineUnavailable("lost"))
        harness.lanes.remove("news", "c1")
        waiting = asyncio.ensure_future(harness.lanes.wait_until_empty())
        await settle()
        assert not waiting.done()
        harness.advance_time(1)
        await waiting

    run_scenario(scenario())


def test_cancelled_subscriber_does_not_disturb_the_batch() -> None:
    """Its entry is removed by whoever has cancelled it."""

    async def scenario() -> None:
        harness = LanesHarness()
        harness.calls.hold("presence_add")
        first, second = harness.start_add("c1"), harness.start_add("c2")
        await settle()
        first.cancel()
        await settle()
        harness.calls.release("presence_add")
        await second
        assert harness.present() == {"c1", "c2"}

    run_scenario(scenario())
