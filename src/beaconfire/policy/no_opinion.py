"""The base class of policies that decide only some of the questions."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw

from beaconfire.channels.namespaces import Namespace
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.requests import SubscriptionRequest
from beaconfire.policy.port import (
    TICKET_DECISIONS,
    Caller,
    ConnectionAttempt,
    EndedSession,
    EndedSubscription,
    PublicationAttempt,
    Via,
)


class NoOpinion:
    """Implements `policy.port.Policy`: has no opinion and never suspends.

    A subclass overrides the decisions that it wants to make, and `suspending` if one of them awaits anything.
    """

    @property
    def suspending(self) -> frozenset[str]:
        return frozenset()

    @property
    def decides_for_server_api(self) -> bool:
        """True for a subclass that overrides `publish`."""
        return type(self).publish is not NoOpinion.publish

    @property
    def wants_endings(self) -> bool:
        """True for a subclass that overrides `unsubscribed` or `disconnected`."""
        own = type(self)
        return own.unsubscribed is not NoOpinion.unsubscribed or own.disconnected is not NoOpinion.disconnected

    @property
    def ticket_version(self) -> str | None:
        """None for a subclass that overrides a decision which a ticket would replace. Such a subclass names its version
        if its decisions hold for every later connection of the same user."""
        own = type(self)
        return None if any(getattr(own, name) is not getattr(NoOpinion, name) for name in TICKET_DECISIONS) else ""

    async def connect(self, attempt: ConnectionAttempt) -> Identity | None:
        return None

    async def refresh(self, caller: Caller, token: str) -> Identity | None:
        return None

    async def subscribe(
        self,
        caller: Caller,
        request: SubscriptionRequest,
        namespace: Namespace,
        via: Via,
        proposed: SubscriptionGrant | None,
    ) -> SubscriptionGrant | None:
        return None

    async def sub_refresh(self, caller: Caller, channel: str, token: str) -> SubscriptionGrant | None:
        return None

    async def publish(self, attempt: PublicationAttempt) -> Raw | None:
        return None

    async def presence(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> bool | None:
        return None

    async def history(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> bool | None:
        return None

    async def rpc(self, caller: Caller, method: str, data: Raw) -> Raw | None:
        return None

    async def message(self, caller: Caller, data: Raw) -> bool | None:
        return None

    async def unsubscribed(self, ended: Sequence[EndedSubscription]) -> None:
        pass

    async def disconnected(self, ended: Sequence[EndedSession]) -> None:
        pass
