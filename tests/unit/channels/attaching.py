"""Attachments with a broker that tests control."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from beaconfire.base.backoff import Backoff
from beaconfire.base.clock import ManualClock
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timers
from beaconfire.channels.attachments import Attachments
from beaconfire.engines.memory import memory_engine
from beaconfire.model.events import NoEvents
from tests.fakes.engine import ControlledBroker, ManualCalls
from tests.unit.kit import run

DETACH_DELAY_S = 1.0
TIMEOUT_S = 3.0


class AttachmentsHarness:
    """Attachments with a broker that the test controls. `needed` are the channels with subscribers."""

    def __init__(self, suspends: bool = True) -> None:
        """`suspends` as in `Engine`: without it, tests need no event loop."""
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.calls = ManualCalls()
        self.needed: set[str] = set()
        self.errors: list[BaseException] = []
        self.background = BackgroundTasks(self.errors.append, suspends)
        engine = memory_engine(self.clock)
        run(engine.broker.start(_IgnoredEvents()))
        broker = ControlledBroker(self.calls, engine.broker)
        self.attachments = Attachments(
            broker,
            self.timers,
            self.background,
            Backoff(lambda: 0.5),
            DETACH_DELAY_S,
            TIMEOUT_S,
            self.needed.__contains__,
        )

    def release(self, channel: str = "news") -> None:
        self.needed.discard(channel)
        self.attachments.release(channel)

    def advance_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()


class _IgnoredEvents(NoEvents):
    def on_publication(self, *_: object) -> None: ...

    def on_join(self, *_: object) -> None: ...

    def on_leave(self, *_: object) -> None: ...

    def on_link_down(self, *_: object) -> None: ...

    def on_link_up(self, *_: object) -> None: ...


def assert_nothing_is_left(harness: AttachmentsHarness) -> None:
    """No channel is attached, and no table has an entry."""
    attachments = harness.attachments
    tables = (attachments._attached, attachments._unsure, attachments._wanted, attachments._queue)
    assert not any(tables)
    assert not any((attachments._calling, attachments._voided, attachments._lingering, attachments._deadlines))


def run_scenario(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 5))
