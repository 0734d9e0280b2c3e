"""The port for verifying tokens, and its errors."""

from __future__ import annotations

from typing import Protocol

from beaconfire.model.grants import SubscriptionClaims
from beaconfire.model.identity import Identity


class TokenError(Exception):
    """A token was refused. The text names the claim or check that failed, and never holds the token."""


class TokenExpired(TokenError):
    """The token has expired. A new token helps."""


class TokenInvalid(TokenError):
    """The token can never be valid: wrong key, algorithm, claim or format."""


class TokenUnverifiable(TokenError):
    """The keys are not available at the moment (the JWKS address cannot be reached). The token may be valid."""


class TokenVerifier(Protocol):
    """Verifies tokens. Both methods raise TokenExpired, TokenInvalid or TokenUnverifiable."""

    @property
    def suspends(self) -> bool:
        """Whether a method may suspend, because keys may have to be fetched."""

    async def verify_connection(self, token: str) -> Identity: ...

    async def verify_subscription(self, token: str) -> SubscriptionClaims: ...
