"""Implementing `policy.port.Policy`."""

from __future__ import annotations

from msgspec import Raw

from beaconfire.base.errors import METHOD_NOT_FOUND, PERMISSION_DENIED, UNAUTHORIZED, CommandError
from beaconfire.channels.namespaces import Namespace
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.policy.port import Policy
from beaconfire.protocols.centrifuge.requests import ConnectRequest, SubscribeRequest


class StaffPolicy:
    """A complete policy. It need not inherit from `Policy`."""

    def __init__(self, staff: frozenset[str]) -> None:
        self._staff = staff

    async def connect(self, request: ConnectRequest) -> Identity:
        if request.token not in self._staff:
            raise CommandError(UNAUTHORIZED, "the token names no member of staff")
        return Identity(user=request.token, info=Raw(b'{"role":"staff"}'))

    async def refresh(self, identity: Identity, token: str) -> Identity:
        return Identity(user=identity.user, expire_at_unix_s=identity.expire_at_unix_s + 60)

    async def subscribe(
        self, identity: Identity, client: str, request: SubscribeRequest, namespace: Namespace
    ) -> SubscriptionGrant:
        if not request.channel.startswith("staff:"):
            raise CommandError(PERMISSION_DENIED)
        return SubscriptionGrant(info=identity.info)

    async def sub_refresh(self, identity: Identity, client: str, channel: str, token: str) -> SubscriptionGrant:
        return SubscriptionGrant()

    async def publish(self, identity: Identity, subscribed: bool, channel: str, namespace: Namespace, data: Raw) -> Raw:
        return data

    async def rpc(self, identity: Identity, method: str, data: Raw) -> Raw:
        raise CommandError(METHOD_NOT_FOUND, method)


class WithSynchronousRefresh(StaffPolicy):
    def refresh(self, identity: Identity, token: str) -> Identity:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return identity


class WithConnectOnly:
    async def connect(self, request: ConnectRequest) -> Identity:
        return Identity()


policy: Policy = StaffPolicy(frozenset({"ann"}))
incomplete: Policy = WithConnectOnly()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
synchronous: Policy = WithSynchronousRefresh(frozenset())  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


async def ask(policy: Policy) -> str:
    identity = await policy.connect(ConnectRequest(token="ann"))
    identity.user = "bob"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    return identity.user
