"""API keys: the secrets with which backends call the server API."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence


class ApiKeys:
    """The accepted keys. List the old and the new one to rotate; with none, nothing is accepted."""

    __slots__ = ("_digests",)

    def __init__(self, keys: Sequence[str]) -> None:
        """Raises ValueError for an empty key: an empty header would be let in with it."""
        for index, key in enumerate(keys):
            if not key.strip():
                raise ValueError(f"api.keys[{index}]: expected a secret, got an empty text; remove the entry")
        self._digests = tuple(_digest(key) for key in keys)

    def accepts(self, candidate: str) -> bool:
        """Whether `candidate` is one of the keys, in a time that tells nothing about how nearly or which.

        Digests are compared, because `compare_digest` of texts gives away their length, and always all of them.
        """
        digest = _digest(candidate)
        accepted = False
        for known in self._digests:
            accepted |= hmac.compare_digest(digest, known)
        return accepted


def _digest(key: str) -> bytes:
    # Header values are arbitrary bytes; a lone surrogate must be a wrong key, not an exception.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
