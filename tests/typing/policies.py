"""Implementing `policy.port.Policy`: all of it, or with `NoOpinion` only some decisions."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw

from beaconfire.base.errors import METHOD_NOT_FOUND, PERMISSION_DENIED, UNAUTHORIZED, CommandError
from beaconfire.channels.namespaces import Namespace
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.handshake import Handshake
from beaconfire.model.identity import Identity
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.policy.chain import PolicyChain
from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import (
    Caller,
    ConnectionAttempt,
    EndedSession,
    EndedSubscription,
    Policy,
    PublicationAttempt,
    Via,
)


class StaffPolicy:
    """A complete policy. It need not inherit from `Policy` or `NoOpinion`."""

    suspending = frozenset({"connect", "rpc"})
    wants_endings = True
    decides_for_server_api = True
    ticket_version = "staff 1"

    def __init__(self, staff: frozenset[str]) -> None:
        self._staff = staff
        self.online: set[str] = set()

    async def connect(self, attempt: ConnectionAttempt) -> Identity | None:
        cookie = attempt.handshake.cookies.get("session")
        if cookie is None:
            return None
        if attempt.request.token not in self._staff:
            raise CommandError(UNAUTHORIZED, "the token names no member of staff")
        self.online.add(attempt.client)
        return Identity(user=attempt.request.token, info=Raw(b'{"role":"staff"}'))

    async def refresh(self, caller: Caller, token: str) -> Identity | None:
        return Identity(user=caller.identity.user, expire_at_unix_s=caller.identity.expire_at_unix_s + 60)

    async def subscribe(
        self,
        caller: Caller,
        request: SubscriptionRequest,
        namespace: Namespace,
        via: Via,
        proposed: SubscriptionGrant | None,
    ) -> SubscriptionGrant | None:
        if via is Via.SERVER_API:
            return proposed
        if not request.channel.startswith("staff:"):
            raise CommandError(PERMISSION_DENIED)
        return SubscriptionGrant(info=caller.identity.info)

    async def sub_refresh(self, caller: Caller, channel: str, token: str) -> SubscriptionGrant | None:
        return SubscriptionGrant()

    async def publish(self, attempt: PublicationAttempt) -> Raw | None:
        author = attempt.caller.client if attempt.caller is not None else "the server API"
        return attempt.data if attempt.tags and attempt.tags.get("author") == author else None

    async def presence(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> bool | None:
        return subscribed or None

    async def history(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> bool | None:
        return None

    async def rpc(self, caller: Caller, method: str, data: Raw) -> Raw | None:
        raise CommandError(METHOD_NOT_FOUND, method)

    async def message(self, caller: Caller, data: Raw) -> bool | None:
        return True

    async def unsubscribed(self, ended: Sequence[EndedSubscription]) -> None:
        for subscription in ended:
            print(subscription.channel, subscription.code)

    async def disconnected(self, ended: Sequence[EndedSession]) -> None:
        self.online -= {session.client for session in ended}


class EchoPolicy(NoOpinion):
    """Decides only about calls."""

    async def rpc(self, caller: Caller, method: str, data: Raw) -> Raw | None:
        return data if method == "echo" else None


class WithSynchronousRefresh(StaffPolicy):
    def refresh(self, caller: Caller, token: str) -> Identity | None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return caller.identity


class WithTextAsResult(NoOpinion):
    async def rpc(self, caller: Caller, method: str, data: Raw) -> str | None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return method


class WithConnectOnly:
    async def connect(self, attempt: ConnectionAttempt) -> Identity | None:
        return Identity()


policy: Policy = StaffPolicy(frozenset({"ann"}))
echo: Policy = EchoPolicy()
chain: Policy = PolicyChain([policy, echo, PolicyChain([])])
incomplete: Policy = WithConnectOnly()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
synchronous: Policy = WithSynchronousRefresh(frozenset())  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
textual: Policy = WithTextAsResult()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


async def ask(policy: Policy) -> str:
    attempt = ConnectionAttempt(ConnectionRequest(token="ann"), "client-id", Handshake("websocket"))
    identity = await policy.connect(attempt)
    attempt.client = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    unknown: str = identity.user  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    if identity is None:
        return unknown
    identity.user = "bob"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    return identity.user
