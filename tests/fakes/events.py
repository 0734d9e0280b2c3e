"""An event sink for tests."""

from __future__ import annotations

from typing import TypeVar

from beaconfire.model.events import Event, InternalError, LimitHit

EventT = TypeVar("EventT", bound=Event)


class EventRecorder:
    """Keeps all events. An internal error fails the test at once, unless `expects_errors` is true."""

    def __init__(self, expects_errors: bool = False) -> None:
        self.events: list[Event] = []
        self.expects_errors = expects_errors

    def emit(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, InternalError) and not self.expects_errors:
            raise AssertionError(event.error)

    def of(self, kind: type[EventT]) -> list[EventT]:
        """The events of one type, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def limits(self) -> list[str]:
        """The names of the limits that were hit, in order."""
        return [event.limit for event in self.of(LimitHit)]
