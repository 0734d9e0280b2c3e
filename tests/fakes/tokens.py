"""Token verifiers without signatures."""

from __future__ import annotations

import json
from typing import Any, Generic, TypeVar

from msgspec import Raw

from beaconfire.model.grants import SubscriptionClaims, SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.policy.tokens import TokenInvalid
from tests.fakes.engine import CallControl

T = TypeVar("T")


class TokenTable(Generic[T]):
    """The outcome of verifying each token: claims, or an error to raise. Unknown tokens are invalid."""

    def __init__(self) -> None:
        self.known: dict[str, T | Exception] = {}

    def find(self, token: str) -> T:
        outcome = self.known.get(token)
        if outcome is None:
            raise TokenInvalid(f"no such token: {token}")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class KnownTokens:
    """A verifier that knows the tokens that a test has added."""

    def __init__(self, calls: CallControl) -> None:
        self._calls = calls
        self.connections: TokenTable[Identity] = TokenTable()
        self.subscriptions: TokenTable[SubscriptionClaims] = TokenTable()

    @property
    def suspends(self) -> bool:
        return getattr(self._calls, "is_holding", False)

    async def verify_connection(self, token: str) -> Identity:
        await self._calls.before("verify", token)
        return self.connections.find(token)

    async def verify_subscription(self, token: str) -> SubscriptionClaims:
        await self._calls.before("verify", token)
        return self.subscriptions.find(token)

    def add_subscription(self, token: str, user: str, channel: str, client: str = "", **grant: Any) -> str:
        """Makes `token` a subscription token of `user` for `channel`, and returns it."""
        self.subscriptions.known[token] = SubscriptionClaims(user, channel, SubscriptionGrant(client=client, **grant))
        return token


class UserNameTokens:
    """A verifier for which every connection token is the name of a user, and every subscription token is invalid."""

    suspends = False

    async def verify_connection(self, token: str) -> Identity:
        return Identity(user=token, info=Raw(json.dumps({"name": token}, separators=(",", ":")).encode()))

    async def verify_subscription(self, token: str) -> SubscriptionClaims:
        raise TokenInvalid("this test has no subscription tokens")
