"""Remembers tokens whose signature was verified, so that the tokens of clients that come back are not verified again.

Only the signature is remembered. Expiry, the other claims and revocations are checked at each use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from beaconfire.auth.algorithms import VerificationKey
from beaconfire.auth.claims import Claims

VERIFIED_TOKENS_MAX: Final = 16_384
"""How many tokens are remembered, those that were used last. Each takes about 2 KiB with ten claims."""

REMEMBERED_LENGTH_MAX: Final = 2048
"""Characters of a token that is remembered. This bounds the memory of all of them. Longer tokens are verified at each
use."""


class _Verified(NamedTuple):
    key: VerificationKey
    claims: Claims


class VerifiedTokens:
    """The claims of verified tokens, by the SHA-256 of the token, least recently used first.

    An entry counts only as long as the very key object that verified it is still in use. So a key that was removed,
    has ended or was fetched again makes its entries void.
    """

    __slots__ = ("_limit", "_verified")

    def __init__(self, limit: int = VERIFIED_TOKENS_MAX) -> None:
        self._limit = limit
        self._verified: dict[bytes, _Verified] = {}

    def __len__(self) -> int:
        return len(self._verified)

    def find(self, token: str, keys: Iterable[VerificationKey]) -> Claims | None:
        """The claims of the token if one of `keys` has verified it before. `token` must be ASCII."""
        digest = _digest(token)
        found = self._verified.pop(digest, None)
        if found is None or not any(key is found.key for key in keys):
            return None
        self._verified[digest] = found
        return found.claims

    def add(self, token: str, key: VerificationKey, claims: Claims) -> None:
        """Remembers that `key` has verified the token, and forgets the least recently used token beyond the limit."""
        if len(token) > REMEMBERED_LENGTH_MAX:
            return
        if len(self._verified) >= self._limit:
            del self._verified[next(iter(self._verified))]
        self._verified[_digest(token)] = _Verified(key, claims)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
