"""One node's stream of revocations, without the rest of the node."""

from __future__ import annotations

from typing import Any

from beaconfire.base.backoff import Backoff
from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import CommandError
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timers
from beaconfire.engines.port import Engine
from beaconfire.model.identity import Identity
from beaconfire.model.publication import Publication
from beaconfire.node.revocation_stream import RevocationStream
from beaconfire.session.revocations import REVOCATIONS_MAX, Revocation, Revocations
from tests.fakes.engine import NoCallbacks
from tests.fakes.events import EventRecorder
from tests.unit.kit import settle

CHANNEL = "\x01:revocations"


class Node(NoCallbacks):
    """One node's revocations, and those that were enforced."""

    def __init__(self, engine: Engine, clock: ManualClock, timers: Timers, limit: int = REVOCATIONS_MAX) -> None:
        self.engine = engine
        self.clock = clock
        self.timers = timers
        self.recorder = EventRecorder(expects_errors=True)
        self.revocations = Revocations(clock, self.recorder, limit)
        self.enforced: list[Revocation] = []
        background = BackgroundTasks(lambda error: None, engine.suspends)
        self.stream = RevocationStream(
            CHANNEL,
            engine,
            self.revocations,
            self.enforced.append,
            background,
            timers,
            Backoff(lambda: 0.5),
            self.recorder,
        )

    def on_publication(self, channel: str, publication: Publication, epoch: str, previous: int, *_: Any) -> None:
        self.stream.on_publication(channel, publication, epoch, previous)

    def on_link_down(self, channels: Any) -> None:
        self.stream.on_link_down(channels)

    def on_link_up(self, channels: Any) -> None:
        self.stream.on_link_up(channels)

    async def start(self) -> None:
        await self.engine.broker.start(self)
        self.stream.start()
        await settle()

    async def revoke(self, user: str, lifetime_s: float = 60.0, **fields: Any) -> None:
        now_unix_s = self.clock.unix_s()
        await self.stream.revoke(Revocation(now_unix_s + lifetime_s, now_unix_s, user, **fields))

    def is_ready(self) -> bool:
        return self.revocations.are_known

    def refuses(self, user: str) -> bool:
        """Whether a token of the user is refused that was issued a second ago."""
        try:
            self.revocations.check_identity(Identity(user, issued_at_unix_s=self.clock.unix_s() - 1))
        except CommandError:
            return True
        return False
