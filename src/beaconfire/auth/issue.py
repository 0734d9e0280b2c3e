"""Issues tokens, as a backend does: for the command line and for tests."""

from __future__ import annotations

import base64
import math
from typing import Any, Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt import PyJWTError
from msgspec import Struct

from beaconfire.auth.algorithms import HMAC, OPTION_OF, TOKEN_LENGTH_MAX, algorithms_of, hmac_key, make_jws

_JWS: Final = make_jws()


class TokenContents(Struct, frozen=True):
    """The header and the claims of a token, verified or not."""

    header: dict[str, Any]
    claims: dict[str, Any]


def connection_token(
    secret: str,
    user: str,
    *,
    now_unix_s: float,
    expires_in_s: float | None = None,
    algorithm: str = "HS256",
    kid: str = "",
    **claims: object,
) -> str:
    """A connection token for `user`; "" is the anonymous user.

    Args:
        secret: the HMAC secret, or for RS*, ES* and EdDSA the PEM text of the private key.
        expires_in_s: lifetime from `now_unix_s` on; with None the token never expires.
        claims: additional claims, written unchanged: `info`, `channels`, `subs`, `meta`, `expire_at`, …

    Raises ValueError if the algorithm is unknown or the secret does not fit it.
    """
    return sign_claims(
        secret,
        standard_claims(user, now_unix_s=now_unix_s, expires_in_s=expires_in_s) | claims,
        algorithm=algorithm,
        kid=kid,
    )


def subscription_token(
    secret: str,
    user: str,
    channel: str,
    *,
    now_unix_s: float,
    expires_in_s: float | None = None,
    algorithm: str = "HS256",
    kid: str = "",
    **claims: object,
) -> str:
    """A token that permits `user` to subscribe to `channel`. Otherwise like `connection_token`."""
    standard = standard_claims(user, now_unix_s=now_unix_s, expires_in_s=expires_in_s) | {"channel": channel}
    return sign_claims(secret, standard | claims, algorithm=algorithm, kid=kid)


def standard_claims(user: str, *, now_unix_s: float, expires_in_s: float | None = None) -> dict[str, object]:
    """`sub`, `iat` and, if the token expires, `exp`."""
    claims: dict[str, object] = {"sub": user, "iat": int(now_unix_s)}
    if expires_in_s is not None:
        claims["exp"] = math.ceil(now_unix_s + expires_in_s)  # whole seconds, rounded up
    return claims


def sign_claims(secret: str, claims: dict[str, object], *, algorithm: str = "HS256", kid: str = "") -> str:
    """A token with exactly these claims. Raises ValueError like `connection_token`."""
    if algorithm not in OPTION_OF:
        raise ValueError(f"algorithm {algorithm}: expected one of {', '.join(OPTION_OF)}")
    key = hmac_key(secret) if algorithm in HMAC else secret.encode()
    try:
        return _JWS.encode(msgspec.json.encode(claims), key, algorithm, headers={"kid": kid} if kid else None)
    except (PyJWTError, ValueError, TypeError, AttributeError):
        # Signing with a public key raises AttributeError.
        raise ValueError(f"algorithm {algorithm}: expected a matching private key in PEM") from None


def algorithm_for(private_key: str) -> str:
    """The usual algorithm of a private key in PEM. Raises ValueError if there is none."""
    try:
        key = load_pem_private_key(private_key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("expected an unencrypted private key in PEM (-----BEGIN PRIVATE KEY-----)") from None
    return algorithms_of(key.public_key())[0]


def inspect_token(token: str) -> TokenContents:
    """The header and the claims, without verification. Raises ValueError if the text is not a JWT."""
    parts = token.split(".")
    if len(token) > TOKEN_LENGTH_MAX or len(parts) != 3:
        raise ValueError("expected a JWT: three base64url parts joined by dots")
    try:
        header, claims = (_json_object(part) for part in parts[:2])
    except (ValueError, RecursionError):
        raise ValueError("expected a JWT: header and payload must be JSON objects in base64url") from None
    return TokenContents(header, claims)


def _json_object(part: str) -> dict[str, Any]:
    return msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), type=dict[str, Any])
