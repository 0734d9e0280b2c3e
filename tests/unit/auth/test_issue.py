"""Issuing tokens, and inspecting them."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Raw

from beaconfire.auth.algorithms import TOKEN_LENGTH_MAX
from beaconfire.auth.issue import (
    algorithm_for,
    connection_token,
    inspect_token,
    sign_claims,
    subscription_token,
)
from beaconfire.auth.options import TokenOptions

from .samples import NOW, SECRET, at_once, forged, make_verifier, private_pem, public_pem


def test_connection_token_claims() -> None:
    """The token contains the standard claims first, then the given claims unchanged; the verifier accepts it."""
    token = connection_token(
        SECRET, "42", now_unix_s=NOW + 0.5, expires_in_s=60, kid="k1", info=Raw(b'{"name":"Ann"}'), channels=["news"]
    )
    contents = inspect_token(token)
    assert contents.header == {"alg": "HS256", "typ": "JWT", "kid": "k1"}
    assert contents.claims == {
        "sub": "42",
        "iat": int(NOW),
        "exp": int(NOW) + 61,
        "info": {"name": "Ann"},
        "channels": ["news"],
    }
    assert at_once(make_verifier().verify_connection(token)).user == "42"


def test_subscription_token_claims() -> None:
    """The token contains the channel, and without a lifetime no `exp`."""
    token = subscription_token(SECRET, "42", "$news", now_unix_s=NOW, client="c1")
    assert inspect_token(token).claims == {"sub": "42", "iat": int(NOW), "channel": "$news", "client": "c1"}
    assert at_once(make_verifier().verify_subscription(token)).channel == "$news"


@pytest.mark.parametrize(
    ("key", "algorithm", "option"),
    [
        ("rsa", "RS256", "rsa_public_key"),
        ("P-256", "ES256", "ecdsa_public_key"),
        ("P-384", "ES384", "ecdsa_public_key"),
        ("P-521", "ES512", "ecdsa_public_key"),
        ("ed25519", "EdDSA", "eddsa_public_key"),
    ],
)
def test_algorithm_for_a_private_key(key: str, algorithm: str, option: str) -> None:
    """A token that is signed with this algorithm is verified by the public key."""
    assert algorithm_for(private_pem(key)) == algorithm
    token = connection_token(private_pem(key), "42", now_unix_s=NOW, algorithm=algorithm)
    verifier = make_verifier(msgspec.structs.replace(TokenOptions(), **{option: public_pem(key)}))
    assert at_once(verifier.verify_connection(token)).user == "42"


@pytest.mark.parametrize(
    ("secret", "algorithm", "text"),
    [
        ("secret", "none", "algorithm none: expected one of HS256"),
        ("secret", "PS256", "algorithm PS256: expected one of HS256"),
        ("", "HS256", "expected a shared secret"),
        ("public", "HS256", "public keys belong in rsa_public_key"),
        ("secret", "RS256", "algorithm RS256: expected a matching private key in PEM"),
        ("public", "RS256", "algorithm RS256: expected a matching private key in PEM"),
        ("rsa", "ES256", "algorithm ES256: expected a matching private key in PEM"),
        ("P-384", "ES256", "algorithm ES256: expected a matching private key in PEM"),
        ("rsa", "EdDSA", "algorithm EdDSA: expected a matching private key in PEM"),
    ],
)
def test_a_secret_that_does_not_fit_the_algorithm_is_refused(secret: str, algorithm: str, text: str) -> None:
    """Nothing is signed with a wrong kind of key, and the text does not contain the key."""
    if secret == "public":
        secret = public_pem("rsa")
    elif secret in ("rsa", "P-384"):
        secret = private_pem(secret)
    with pytest.raises(ValueError) as caught:
        sign_claims(secret, {"sub": "42"}, algorithm=algorithm)
    assert text in str(caught.value)
    assert "BEGIN" not in str(caught.value).replace("-----BEGIN PRIVATE KEY-----", "")


@pytest.mark.parametrize("key", ["", "secret", "public", "ed448", "secp256k1"])
def test_algorithm_for_an_unsupported_key_fails(key: str) -> None:
    """Public keys and unsupported key types are refused."""
    pem = public_pem("rsa") if key == "public" else private_pem(key) if key in ("ed448", "secp256k1") else key
    with pytest.raises(ValueError):
        algorithm_for(pem)


def test_inspect_token_verifies_nothing() -> None:
    """Unsigned, expired and unsupported tokens are decoded, too."""
    token = forged({"alg": "none"}, {"sub": 1, "exp": 0}, lambda _: b"")
    assert inspect_token(token).claims == {"sub": 1, "exp": 0}


@pytest.mark.parametrize(
    "token",
    ["", "a.b", "a.b.c", "e30.e30", "e30.e30.e30.e30", "W10.e30.", "e30.W10.", "e30.ä.", "\ud800..", "x" * 99999],
)
def test_inspecting_malformed_text_raises_value_error(token: str) -> None:
    """Always ValueError, and no other exception."""
    with pytest.raises(ValueError, match="expected a JWT"):
        inspect_token(token)


def test_inspecting_an_overlong_token_raises_value_error() -> None:
    """The limit is the same as that of the verifier."""
    with pytest.raises(ValueError, match="expected a JWT"):
        inspect_token(sign_claims(SECRET, {"pad": "x" * TOKEN_LENGTH_MAX}))
