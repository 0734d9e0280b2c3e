"""One or two nodes, a lossy engine and clients, whose events happen in a random order that one seed determines.

The nodes with their sessions, hubs, attachments and operations are the real ones. The engine is slow and can lose its
links and its streams. Handlers take their time, refuse, and do not always answer. Some clients use patches, a filter,
conflation, or several of these. `base` says what else happens, and what is checked.
"""

from __future__ import annotations

import random

from beaconfire.base.clock import ManualClock
from beaconfire.base.timers import Timers
from beaconfire.testing import SharedStore
from tests.simulation.base import BaseSimulation, Choices
from tests.simulation.broker import CHANNELS, StreamStore
from tests.simulation.node import LossyNode, Nodes, World
from tests.simulation.steps import RandomSteps


class Simulation(BaseSimulation[LossyNode]):
    """Nodes, engine and clients, and the random choice of the next event."""

    def __init__(self, seed: int, clients: int = 3, loses_announcements: bool | None = None) -> None:
        rng = random.Random(seed)
        clock = ManualClock()
        self.timers = Timers(clock)
        # In half of the simulations some offsets are left out.
        store = StreamStore(rng if rng.random() < 0.5 else None)
        self.shared = SharedStore(self.timers, rng.random)
        self.presence = self.shared.memory.presence
        steps = RandomSteps(rng, rng.choice((0.0, 0.0, 0.05)))
        loses = rng.random() < 0.6 if loses_announcements is None else loses_announcements
        super().__init__(rng, clock, store, steps, loses)
        world = World(self.timers, steps, store, self.shared)
        count = rng.choice((1, 2))
        self.nodes = Nodes(rng, [LossyNode(self.rules, world, f"node{number}") for number in range(count)])
        self._add_clients(clients)

    # Events

    def _add_calls(self, choices: Choices) -> None:
        if self.shared.on_their_way:
            choices.append((5, self.shared.deliver_one))

    def _add_choices(self, each: LossyNode, choices: Choices) -> None:
        share = 1 / len(self.nodes.all)
        if each.broker.announcements:
            choices.append((5, each.broker.announce_one))
        if each.turns:
            choices.append((12 if each.node.hub.fan_out.is_interrupted else 5, each.run_turn))
        if each.broker.down:
            choices.append((2 * share, each.restore_link))
        elif self.loses_announcements and self.rng.random() < 0.05 * share:
            channels = self.rng.choice((None, [self.rng.choice(CHANNELS)]))
            losing = self.rng.choice(([each], self.nodes.all))
            choices.append((4, lambda: self._lose_links(losing, channels)))

    def _add_losses(self, choices: Choices) -> None:
        rng = self.rng
        if rng.random() < 0.01:
            choices.append((4, lambda: self.store.lose_stream(rng.choice(CHANNELS))))
        if self.loses_announcements and rng.random() < 0.01:
            choices.append((4, lambda: self._fail_over(rng.choice(CHANNELS), rng.randint(1, 4))))
        if self.loses_announcements and rng.random() < 0.005:
            choices.append((4, self._lose_announcements))

    def _lose_links(self, losing: list[LossyNode], channels: list[str] | None) -> None:
        for each in losing:
            if not each.broker.down:
                each.lose_link(channels)

    def _fail_over(self, channel: str, count: int) -> None:
        """Another server takes over, which lacks the newest publications of a channel. All links are lost first."""
        self.excuses.lost_newest = True
        self._lose_links(self.nodes.all, None)
        self.store.lose_newest(channel, count)

    def _lose_announcements(self) -> None:
        """As a lost link, but the node only learns which channels have a gap."""
        self.excuses.gaps = True
        each = self.nodes.choose()
        each.broker.announcements.clear()
        for channel in CHANNELS:
            each.node.hub.mark_gap(channel, "announcements were lost")

    def _advance_time(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds or self.rng.choice((0.3, 1.1, 4.0)))
        self.timers.run_due()

    def _restore(self) -> None:
        for each in self.nodes.all:
            if each.broker.down:
                each.restore_link()

    async def _deliver_pending(self) -> None:
        self.shared.deliver_all()
        self._deliver_all()

    @property
    def is_engine_idle(self) -> bool:
        return not self.shared.on_their_way
