"""Calls and decisions that wait until the simulation lets them continue."""

from __future__ import annotations

import asyncio
import random

from beaconfire.base.errors import EngineUnavailable
from beaconfire.testing.calls import LIFETIME_CALLS

FAILING_BEFORE = frozenset({"attach", "detach", "history", "positions", "announce"})
FAILING_AFTER = frozenset({"attach", "detach"})
"""Calls that may fail before and after their effect. Those of the presence store may do both. An announcement that is
made and then fails would be made again, and clients would see the same join twice."""


class WaitingSteps:
    """What waits for the simulation, which picks the next step that continues."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.waiting: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Returns when the simulation picks this step. A step that is cancelled waits no more."""
        step: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(step)
        try:
            await step
        finally:
            if step in self.waiting:
                self.waiting.remove(step)

    def take_one(self) -> None:
        """Lets a random step continue."""
        step = self.waiting.pop(self.rng.randrange(len(self.waiting)))
        if not step.done():
            step.set_result(None)


class RandomSteps(WaitingSteps):
    """Implements `beaconfire.testing.CallControl`: most calls wait before and after their effect for `take_one`."""

    def __init__(self, rng: random.Random, failures: float = 0.0) -> None:
        """`failures` is the probability that a call fails that may fail."""
        super().__init__(rng)
        self.failures = failures

    async def before(self, call: str, subject: str) -> None:
        await self._wait(call)
        self._fail(call, FAILING_BEFORE)

    async def after(self, call: str, subject: str) -> None:
        for _ in range(self.rng.choice((1, 1, 6)) if call == "history" else 1):
            await self._wait(call)  # much may be published between a slow read and its end
        self._fail(call, FAILING_AFTER)

    def _fail(self, call: str, failing: frozenset[str]) -> None:
        if self.failures and (call in failing or call.startswith("presence_")) and self.rng.random() < self.failures:
            raise EngineUnavailable(f"{call}: the simulation lets this call fail")

    async def _wait(self, call: str) -> None:
        if call in LIFETIME_CALLS or self.rng.random() < 0.25:
            return  # some calls are fast
        await self.wait()
