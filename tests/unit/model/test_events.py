"""Events reach the sinks that handle them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import EngineUnavailable
from beaconfire.model.events import (
    Event,
    EventDispatcher,
    InternalError,
    LimitHit,
    NoEvents,
    TokenKeysFetched,
    report_error,
)
from beaconfire.observe.logs import LogSink
from beaconfire.observe.metrics import MetricsSink


class PartialSink:
    """A sink that handles some types of events."""

    def __init__(self, *kinds: type[Event]) -> None:
        self._kinds = kinds
        self.events: list[Event] = []

    def handler(self, kind: type[Event]) -> Callable[[Any], None] | None:
        return self.events.append if kind in self._kinds else None


def test_each_sink_gets_the_types_it_handles() -> None:
    """Each sink gets all events of its types in order, and no others. Events without a sink are ignored."""
    keys, limits, both = PartialSink(TokenKeysFetched), PartialSink(LimitHit), PartialSink(TokenKeysFetched, LimitHit)
    dispatcher = EventDispatcher(keys, limits, both)
    first, second = TokenKeysFetched(1, ""), LimitHit("client.channel_limit", "c1")
    dispatcher.emit(first)
    dispatcher.emit(second)
    assert (keys.events, limits.events, both.events) == ([first], [second], [first, second])
    EventDispatcher(keys).emit(second)
    EventDispatcher().emit(second)
    NoEvents().emit(second)
    assert keys.events == [first]


def test_our_sinks_know_every_type_of_event() -> None:
    """The metrics sink handles every type; the log sink returns None for types that are not logged."""
    metrics, log = MetricsSink(), LogSink(clock=ManualClock())
    assert all(callable(metrics.handler(kind)) for kind in get_args(Event))
    wanted = {kind for kind in get_args(Event) if log.handler(kind) is not None}
    assert LimitHit in wanted
    assert wanted < set(get_args(Event))


def test_a_failure_of_the_engine_is_no_internal_error() -> None:
    """The guard of the engine has counted the failure. Every other exception is reported with its traceback."""
    sink = PartialSink(InternalError)
    dispatcher = EventDispatcher(sink)
    report_error(dispatcher, "background", EngineUnavailable("no connection"))
    assert sink.events == []
    report_error(dispatcher, "background", RuntimeError("boom"))
    (event,) = sink.events
    assert isinstance(event, InternalError)
    assert event.where == "background"
    assert "RuntimeError: boom" in event.error
