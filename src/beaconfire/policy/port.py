"""The port for decisions: whether a client may connect, subscribe, publish or call a method.

A policy may suspend: other commands of the same session wait meanwhile, and the session may end before the decision.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Raw

from beaconfire.channels.namespaces import Namespace
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.requests import ConnectRequest, SubscribeRequest


class Policy(Protocol):
    """Decisions about clients.

    Every method raises CommandError to refuse a command, or Disconnect to end the session as well. Any other exception
    is reported, and the client gets error 100.
    """

    async def connect(self, request: ConnectRequest) -> Identity:
        """The identity of the client. Raises CommandError 101 for a request without credentials."""

    async def refresh(self, identity: Identity, token: str) -> Identity:
        """The identity of the same user with a later expiry."""

    async def subscribe(
        self, identity: Identity, client: str, request: SubscribeRequest, namespace: Namespace
    ) -> SubscriptionGrant:
        """The permission to subscribe to `request.channel`. `client` is the client id of the session."""

    async def sub_refresh(self, identity: Identity, client: str, channel: str, token: str) -> SubscriptionGrant:
        """The permission for a subscription that exists, with a later expiry."""

    async def publish(self, identity: Identity, subscribed: bool, channel: str, namespace: Namespace, data: Raw) -> Raw:
        """The data to publish: `data` or changed data. `subscribed` is true if the session is in the channel."""

    async def rpc(self, identity: Identity, method: str, data: Raw) -> Raw:
        """The data of the result."""
