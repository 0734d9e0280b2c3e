"""The port for decisions: whether a client may connect, subscribe, publish or call."""

from __future__ import annotations

from typing import Protocol

from msgspec import Raw

from beaconfire.channels.namespaces import Namespace
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.requests import ConnectRequest, SubscribeRequest


class Policy(Protocol):
    """Decisions about clients. Each raises CommandError to refuse, or Disconnect to end the session as well."""

    async def connect(self, request: ConnectRequest) -> Identity:
        """Who this is. CommandError 101 where nothing was shown that could tell."""

    async def refresh(self, identity: Identity, token: str) -> Identity:
        """The same user with a later end."""

    async def subscribe(
        self, identity: Identity, client: str, request: SubscribeRequest, namespace: Namespace
    ) -> SubscriptionGrant:
        """Leave to enter `request.channel`."""

    async def sub_refresh(self, identity: Identity, client: str, channel: str, token: str) -> SubscriptionGrant:
        """The same leave with a later end."""

    async def publish(self, identity: Identity, subscribed: bool, channel: str, namespace: Namespace, data: Raw) -> Raw:
        """The data to publish, usually as given."""

    async def rpc(self, identity: Identity, method: str, data: Raw) -> Raw:
        """The result's data."""
