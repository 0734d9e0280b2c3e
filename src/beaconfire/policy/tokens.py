"""The port for verifying tokens, and its errors."""

from __future__ import annotations

from typing import Protocol

from beaconfire.model.grants import SubscriptionClaims
from beaconfire.model.identity import Identity


class TokenError(Exception):
    """A token that was refused. The text says which claim or check failed, never the token itself."""


class TokenExpired(TokenError):
    """Everything else about the token may be right: a new one helps."""


class TokenInvalid(TokenError):
    """It can never work: wrong key, algorithm, claim or shape."""


class TokenUnverifiable(TokenError):
    """The keys could not be had just now (JWKS endpoint unreachable); the token may be good."""


class TokenVerifier(Protocol):
    """Checks tokens. Raises TokenExpired, TokenInvalid or TokenUnverifiable."""

    async def verify_connection(self, token: str) -> Identity: ...

    async def verify_subscription(self, token: str) -> SubscriptionClaims: ...
