"""A policy whose handlers wait, refuse, and sometimes never answer."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import Final

from msgspec import Raw

from beaconfire.base.errors import PERMISSION_DENIED, CommandError
from beaconfire.channels.namespaces import Namespace
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.requests import SubscriptionRequest
from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import Caller, ConnectionAttempt, PublicationAttempt, Via
from tests.simulation.broken_guarantee import BrokenGuarantee
from tests.simulation.steps import WaitingSteps

TIMEOUT_S: Final = 5.0
"""The deadline of a decision."""

SUSPENDING: Final = frozenset({"connect", "subscribe", "publish", "presence", "history", "rpc"})


class RandomHandlers(NoOpinion):
    """Decides nothing, except that it refuses sometimes and answers rpc with the data of the call."""

    suspending = SUSPENDING

    def __init__(self, rng: random.Random, now_s: Callable[[], float], has_ended: Callable[[str], bool]) -> None:
        """`has_ended` tells whether the session with this client id has ended."""
        self._rng = rng
        self._now_s = now_s
        self._has_ended = has_ended
        self.steps = WaitingSteps(rng)
        self.refusals = self.hangs = 0.05
        """Probabilities that a decision refuses, and that it never answers."""
        self._numbers = itertools.count()
        self.running: dict[int, tuple[str, str, float]] = {}
        """The decisions that are being made: name, client id or empty, and start."""
        self.refused: set[bytes] = set()
        """Data that must not be published."""
        self.made = self.cancelled = self.hung = self.beside = 0

    def check(self) -> None:
        """Checks that decisions have ended with their session, and at their deadline. The event loop must be idle."""
        for decision, client, started_s in self.running.values():
            if client and self._has_ended(client):
                raise BrokenGuarantee(f"{client}: {decision} is being decided, although the session has ended")
            if self._now_s() - started_s >= TIMEOUT_S:
                raise BrokenGuarantee(f"{client}: {decision} is being decided after its deadline")

    async def _decide(self, decision: str, client: str) -> None:
        number = next(self._numbers)
        self.beside += any(
            running == "rpc" and caller == client and decision != "rpc" for running, caller, _ in self.running.values()
        )
        self.running[number] = (decision, client, self._now_s())
        try:
            for _ in range(self._rng.choice((0, 0, 1, 1, 1, 4))):
                await self.steps.wait()
                if client and self._has_ended(client):
                    raise BrokenGuarantee(f"{client}: {decision} goes on, although the session has ended")
            fate = self._rng.random()
            if fate < self.hangs:
                self.hung += 1
                await asyncio.get_running_loop().create_future()
            if fate < self.hangs + self.refusals:
                raise CommandError(PERMISSION_DENIED, f"{decision}: refused by the simulation")
            self.made += 1
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            del self.running[number]

    async def connect(self, attempt: ConnectionAttempt) -> Identity | None:
        await self._decide("connect", attempt.client)
        return None

    async def subscribe(
        self,
        caller: Caller,
        request: SubscriptionRequest,
        namespace: Namespace,
        via: Via,
        proposed: SubscriptionGrant | None,
    ) -> SubscriptionGrant | None:
        await self._decide("subscribe", caller.client)
        return None

    async def publish(self, attempt: PublicationAttempt) -> Raw | None:
        try:
            await self._decide("publish", attempt.caller.client if attempt.caller is not None else "")
        except BaseException:
            self.refused.add(bytes(attempt.data))
            raise
        return None

    async def presence(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> bool | None:
        await self._decide("presence", caller.client)
        return None

    async def history(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> bool | None:
        await self._decide("history", caller.client)
        return None

    async def rpc(self, caller: Caller, method: str, data: Raw) -> Raw | None:
        await self._decide("rpc", caller.client)
        return data
