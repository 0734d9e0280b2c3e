"""How events reach those who look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from beaconfire.base.clock import ManualClock
from beaconfire.model.events import (
    Event,
    EventDispatcher,
    LimitHit,
    NoEvents,
    TokenKeysFetched,
)
from beaconfire.observe.logs import LogSink
from beaconfire.observe.metrics import MetricsSink


class Curious:
    """Takes events of some types."""

    def __init__(self, *kinds: type[Event]) -> None:
        self._kinds = kinds
        self.taken: list[Event] = []

    def handler(self, kind: type[Event]) -> Callable[[Any], None] | None:
        return self.taken.append if kind in self._kinds else None


def test_each_sink_gets_what_it_asked_for() -> None:
    """All of it, in order, and nothing else; what nobody asked for goes nowhere."""
    keys, limits, both = Curious(TokenKeysFetched), Curious(LimitHit), Curious(TokenKeysFetched, LimitHit)
    fanout = EventDispatcher(keys, limits, both)
    first, second = TokenKeysFetched(1, ""), LimitHit("client.channel_limit", "c1")
    fanout.emit(first)
    fanout.emit(second)
    assert (keys.taken, limits.taken, both.taken) == ([first], [second], [first, second])
    EventDispatcher(keys).emit(second)
    EventDispatcher().emit(second)
    NoEvents().emit(second)
    assert keys.taken == [first]


def test_our_sinks_know_every_event() -> None:
    """The metrics count each; the log says of each whether it wants it."""
    metrics, log = MetricsSink(), LogSink(clock=ManualClock())
    assert all(callable(metrics.handler(kind)) for kind in get_args(Event))
    wanted = {kind for kind in get_args(Event) if log.handler(kind) is not None}
    assert LimitHit in wanted
    assert wanted < set(get_args(Event))
