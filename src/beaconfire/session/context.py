"""What the sessions of one node share."""

from __future__ import annotations

from typing import Generic

from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.delivery.hub import Hub
from beaconfire.delivery.outbox import Flusher
from beaconfire.model.events import EventSink
from beaconfire.session.endings import Endings
from beaconfire.session.gap_notices import GapNotices
from beaconfire.session.membership import Memberships
from beaconfire.session.options import ClientOptions
from beaconfire.session.registry import SessionRegistry, SessionT


class SessionContext(Generic[SessionT]):
    """Everything that a session and its keepalive use of their node, and the traffic of all sessions together.

    Operations do not use this object: each gets its own parts when the node is made.
    """

    __slots__ = (
        "background",
        "bytes_in_total",
        "clock",
        "endings",
        "events",
        "flusher",
        "gap_notices",
        "hub",
        "memberships",
        "messages_in_total",
        "options",
        "random",
        "registry",
        "replies_total",
        "schedule",
        "timers",
    )

    def __init__(
        self,
        options: ClientOptions,
        runtime: Runtime,
        events: EventSink,
        flusher: Flusher,
        hub: Hub,
        memberships: Memberships,
        registry: SessionRegistry[SessionT],
        background: BackgroundTasks,
        gap_notices: GapNotices,
        endings: Endings | None = None,
    ) -> None:
        """`endings` is None if the policy does not want to know about endings."""
        self.options = options
        self.timers = runtime.timers
        self.clock = runtime.timers.clock
        self.schedule = runtime.schedule
        self.random = runtime.random
        self.events = events
        self.flusher = flusher
        self.hub = hub
        self.memberships = memberships
        self.registry = registry
        self.background = background
        self.gap_notices = gap_notices
        self.endings = endings
        self.messages_in_total = 0
        self.bytes_in_total = 0
        self.replies_total = 0
