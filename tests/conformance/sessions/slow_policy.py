"""A policy whose decisions take as long as a test wants."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Raw

from beaconfire.channels.namespaces import Namespace
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.requests import SubscriptionRequest
from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import Caller, ConnectionAttempt, PublicationAttempt, Via


class SlowPolicy(NoOpinion):
    """The named decisions wait until `finish` is set. `cancelled` are those that were cancelled, in order.

    The policy answers calls with their own data. In all other decisions it has no opinion.
    """

    def __init__(self, *suspending: str) -> None:
        self.finish = asyncio.Event()
        self.cancelled: list[str] = []
        self.when_cancelled = asyncio.Event()
        self._suspending = frozenset(suspending)

    @property
    def suspending(self) -> frozenset[str]:
        return self._suspending

    async def _wait(self, decision: str) -> None:
        if decision not in self._suspending:
            return
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled.append(decision)
            self.when_cancelled.set()
            raise

    async def connect(self, attempt: ConnectionAttempt) -> Identity | None:
        await self._wait("connect")
        return None

    async def subscribe(
        self,
        caller: Caller,
        request: SubscriptionRequest,
        namespace: Namespace,
        via: Via,
        proposed: SubscriptionGrant | None,
    ) -> SubscriptionGrant | None:
        await self._wait("subscribe")
        return None

    async def publish(self, attempt: PublicationAttempt) -> Raw | None:
        await self._wait("publish")
        return None

    async def presence(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> Any:
        await self._wait("presence")
        return None

    async def history(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> Any:
        await self._wait("history")
        return None

    async def rpc(self, caller: Caller, method: str, data: Raw) -> Raw | None:
        await self._wait("rpc")
        return data
