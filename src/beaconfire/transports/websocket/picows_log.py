"""The logger that picows gets."""

from __future__ import annotations

import traceback

from beaconfire.model.events import EventSink, InternalError


class PicowsLog:
    """Ignores the errors of a peer, and reports an exception in our own callbacks as an event."""

    __slots__ = ("_events",)

    def __init__(self, events: EventSink) -> None:
        self._events = events

    def isEnabledFor(self, level: int) -> bool:
        return False

    def debug(self, message: str, *arguments: object) -> None:
        pass

    info = warning = error = debug

    def exception(self, message: str, *arguments: object) -> None:
        self._events.emit(InternalError("websocket", traceback.format_exc()))
