"""Which channels this node listens to at the broker.

A channel is attached before its first subscriber reads history and detached a while after its last one left. Both are
decided under a lock per channel, and **every** subscriber waits for the same attach: one that trusted an attach still
in flight could miss publications without noticing. Detaching lingers, so that a channel whose only subscriber
reconnects does not flap, and looks again under the lock whether somebody has come back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timers
from beaconfire.engines.port import Broker


class ChannelLock:
    """The lock of one channel in transition, and how many hold or wait for it."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class Attachments:
    """Attach and detach, safely under concurrency. `is_needed` tells whether a channel has subscribers here."""

    def __init__(
        self,
        broker: Broker,
        timers: Timers,
        background: BackgroundTasks,
        detach_delay_s: float,
        is_needed: Callable[[str], bool],
    ) -> None:
        self._broker = broker
        self._timers = timers
        self._background = background
        self._detach_delay_s = detach_delay_s
        self._is_needed = is_needed
        self._attached: set[str] = set()
        self._locks: dict[str, ChannelLock] = {}
        self._lingering: deque[tuple[float, str]] = deque()

    async def attach(self, channel: str) -> None:
        """When it returns, later publications in the channel reach this node. The subscriber is in the hub already.

        Raises what the broker raises; then nothing is attached and the next subscriber tries afresh.
        """
        if channel in self._attached and channel not in self._locks:
            return
        async with self._exclusively(channel):
            if channel not in self._attached:
                await self._broker.attach(channel)
                self._attached.add(channel)

    def release(self, channel: str) -> None:
        """The last subscriber has left: detach after a while, unless somebody comes back."""
        if not self._lingering:
            self._timers.after(self._detach_delay_s, self._detach_due)
        self._lingering.append((self._timers.clock.now_s() + self._detach_delay_s, channel))

    def _detach_due(self) -> None:
        now_s = self._timers.clock.now_s()
        while self._lingering and self._lingering[0][0] <= now_s:
            channel = self._lingering.popleft()[1]
            # One that is only just being attached has a gate: its subscriber may have left without waiting for it.
            if (channel in self._attached or channel in self._locks) and not self._is_needed(channel):
                self._background.start(self._detach(channel))
        if self._lingering:
            self._timers.at(self._lingering[0][0], self._detach_due)

    async def _detach(self, channel: str) -> None:
        async with self._exclusively(channel):
            if channel in self._attached and not self._is_needed(channel):
                # Forgotten first: whoever comes while the broker detaches must attach anew.
                self._attached.discard(channel)
                await self._broker.detach(channel)

    @asynccontextmanager
    async def _exclusively(self, channel: str) -> AsyncIterator[None]:
        """Holds the channel's lock. While its gate is in the table, `attach` goes through it."""
        channel_lock = self._locks.setdefault(channel, ChannelLock())
        channel_lock.users += 1
        try:
            async with channel_lock.lock:
                yield
        finally:
            channel_lock.users -= 1
            if not channel_lock.users:
                del self._locks[channel]

    def __len__(self) -> int:
        return len(self._attached)
