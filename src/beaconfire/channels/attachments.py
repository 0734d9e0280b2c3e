"""The channels that this node is attached to at the broker.

A channel is attached before its first subscriber reads history, and detached some time after its last subscriber left.
A lock per channel protects both steps, and **every** subscriber waits for the same attach: a subscriber that did not
wait for an attach in progress could miss publications without noticing. Detaching is delayed, so that a channel whose
only subscriber reconnects stays attached. Before detaching, the node checks again, under the lock, whether the channel
has subscribers.
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
    """The lock of a channel that is being attached or detached, and how many tasks hold it or wait for it."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class Attachments:
    """Attaches and detaches channels. `is_needed` tells whether a channel has subscribers on this node."""

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
        """Returns when later publications in the channel reach this node. The subscriber must be in the hub already.

        Raises what the broker raises. Then the channel is not attached, and the next subscriber tries again.
        """
        if channel in self._attached and channel not in self._locks:
            return
        async with self._exclusively(channel):
            if channel not in self._attached:
                await self._broker.attach([channel])
                self._attached.add(channel)

    def release(self, channel: str) -> None:
        """Detaches the channel after the delay, if it has no subscribers then."""
        if not self._lingering:
            self._timers.after(self._detach_delay_s, self._detach_due)
        self._lingering.append((self._timers.clock.now_s() + self._detach_delay_s, channel))

    def _detach_due(self) -> None:
        now_s = self._timers.clock.now_s()
        while self._lingering and self._lingering[0][0] <= now_s:
            channel = self._lingering.popleft()[1]
            # A channel that is being attached has a lock. Its subscriber may have left before the attach was done.
            if (channel in self._attached or channel in self._locks) and not self._is_needed(channel):
                self._background.start(self._detach(channel))
        if self._lingering:
            self._timers.at(self._lingering[0][0], self._detach_due)

    async def _detach(self, channel: str) -> None:
        async with self._exclusively(channel):
            if channel in self._attached and not self._is_needed(channel):
                # Removed first: a subscriber that comes while the broker detaches must attach again.
                self._attached.discard(channel)
                await self._broker.detach([channel])

    @asynccontextmanager
    async def _exclusively(self, channel: str) -> AsyncIterator[None]:
        """Holds the channel's lock. While the lock is in the table, `attach` takes it."""
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
