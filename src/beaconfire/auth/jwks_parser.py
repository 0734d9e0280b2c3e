"""Reads a JSON Web Key Set (RFC 7517) and selects the keys that can verify tokens."""

from __future__ import annotations

import asyncio
from typing import Final, TypeAlias

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWTError
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from msgspec import Raw, Struct

from beaconfire.auth.algorithms import PublicKey, VerificationKey, algorithms_of

Keys: TypeAlias = dict[str, tuple[VerificationKey, ...]]
"""Keys by `kid`. RFC 7517 section 4.5 lets keys of different types share one."""

KEYS_PER_TURN: Final = 16
"""Keys that are read before the event loop runs other work: about 1 ms."""


class _JWK(Struct, frozen=True):
    """The members of a key that a verifier needs. Private members are not read."""

    kty: str
    kid: str
    use: str | None = None
    key_ops: list[str] | None = None
    alg: str | None = None
    crv: str | None = None
    n: str | None = None
    e: str | None = None
    x: str | None = None
    y: str | None = None


class _JWKSet(Struct, frozen=True):
    keys: list[Raw]


_JWK_DECODER = msgspec.json.Decoder(_JWK)
_JWK_SET_DECODER = msgspec.json.Decoder(_JWKSet)


async def read_keys(body: bytes) -> Keys:
    """The usable keys of a key set. Skips each key that cannot verify a token, whatever the reason.

    Suspends only for key sets of more than `KEYS_PER_TURN` keys. Raises ValueError if the body is not a key set. An
    empty key set is a valid result: no key is accepted.
    """
    try:
        members = _JWK_SET_DECODER.decode(body).keys
    except (ValueError, RecursionError):
        raise ValueError('the answer is no JSON Web Key Set: expected {"keys": [...]}') from None
    keys: Keys = {}
    for number, member in enumerate(members, 1):
        try:
            jwk = _JWK_DECODER.decode(member)
            key = _verification_key(jwk)
        except (ValueError, TypeError, RecursionError, PyJWTError, UnsupportedAlgorithm):
            pass  # RFC 7517 section 5: ignore keys that are not understood, lack members or have bad values
        else:
            keys[jwk.kid] = (*keys.get(jwk.kid, ()), key)
        if number % KEYS_PER_TURN == 0:
            await asyncio.sleep(0)
    return keys


def quote_kid(kid: str) -> str:
    """A `kid` for error texts. The author of the token chose the kid, so it is quoted and shortened."""
    return repr(kid if len(kid) <= 40 else kid[:40] + "…")


def _verification_key(jwk: _JWK) -> VerificationKey:
    """Raises ValueError, TypeError or PyJWTError for a key that cannot verify signatures of our algorithms."""
    if jwk.use not in (None, "sig") or (jwk.key_ops is not None and "verify" not in jwk.key_ops):
        raise ValueError("the key is not for verifying")
    if not jwk.kid:
        raise ValueError("the key has no kid")
    key = _public_key(jwk)
    algorithms = algorithms_of(key)
    if jwk.alg is not None:
        if jwk.alg not in algorithms:
            raise ValueError(f"alg {jwk.alg} does not fit the key")
        algorithms = (jwk.alg,)
    return VerificationKey(key, algorithms, f"the key {quote_kid(jwk.kid)} of jwks_url")


def _public_key(jwk: _JWK) -> PublicKey:
    """`oct` is deliberately not supported: a secret must not be in a public key set."""
    match jwk.kty:
        case "RSA":
            key: object = RSAAlgorithm.from_jwk({"kty": jwk.kty, "n": jwk.n, "e": jwk.e})
        case "EC":
            key = ECAlgorithm.from_jwk({"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x, "y": jwk.y})
        case "OKP" if jwk.crv == "Ed25519":
            key = OKPAlgorithm.from_jwk({"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x})
        case _:
            raise ValueError(f"kty {jwk.kty} is not supported")
    assert isinstance(key, PublicKey)
    return key
