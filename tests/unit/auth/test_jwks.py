"""Key sets: which key verifies a token."""

from __future__ import annotations

import pytest

from beaconfire.auth.issue import sign_claims
from beaconfire.auth.jwks import FETCH_INTERVAL_MIN_S
from beaconfire.model.events import TokenKeysFetched
from beaconfire.policy.tokens import TokenInvalid

from .jwks_setup import Provider, Setup, run
from .samples import SECRET, at_once, forged, hs256, jwk, key_set, private_pem, public_pem, token_of


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        ("rsa", "RS256"),
        ("rsa", "RS384"),
        ("rsa", "RS512"),
        ("P-256", "ES256"),
        ("P-384", "ES384"),
        ("P-521", "ES512"),
        ("ed25519", "EdDSA"),
    ],
)
def test_every_kind_of_key_verifies(key: str, algorithm: str) -> None:
    """RSA, elliptic-curve and Ed25519 keys of a set verify the algorithms that fit them."""

    async def scenario(setup: Setup) -> None:
        assert await setup.user("k", key, algorithm) == "42"
        assert setup.provider.fetches == 1
        assert setup.events.events == [TokenKeysFetched(1, "")]

    run(Setup(Provider(key_set(jwk(key, "k")))), scenario)


def test_tokens_without_kid_and_hmac_tokens_use_the_static_keys() -> None:
    """The key set is used only for tokens with a kid, and never for HS*, whatever the kid."""
    setup = Setup(Provider(key_set(jwk("rsa", "a"), {"kty": "oct", "kid": "o", "k": "c2VjcmV0"})))
    for token in (
        token_of(sub="42"),
        sign_claims(SECRET, {"sub": "42"}, kid="a"),
        sign_claims(SECRET, {"sub": "42"}, kid="o"),
        sign_claims(private_pem("rsa_other"), {"sub": "42"}, algorithm="RS256"),
    ):
        assert at_once(setup.verifier.verify_connection(token)).user == "42"
    for secret in (b"secret", public_pem("rsa").encode()):
        with pytest.raises(TokenInvalid, match=r"^signature does not match token\.hmac_secret$"):
            at_once(setup.verifier.verify_connection(forged({"alg": "HS256", "kid": "o"}, {}, hs256(secret))))
    with pytest.raises(TokenInvalid, match=r"^alg ES256 without a kid needs token\.ecdsa_public_key"):
        at_once(setup.verifier.verify_connection(forged({"alg": "ES256"}, {}, lambda _: b"")))
    assert setup.provider.fetches == 0


def test_a_static_key_does_not_replace_a_key_of_the_set() -> None:
    """A token with a kid is verified by that key of the set or not at all."""

    async def scenario(setup: Setup) -> None:
        with pytest.raises(TokenInvalid, match=r"^signature does not match the key 'a' of jwks_url$"):
            await setup.user("a", "rsa_other")
        setup.advance(FETCH_INTERVAL_MIN_S)
        with pytest.raises(TokenInvalid, match=r"^kid 'b' is not in the key set of jwks_url$"):
            await setup.user("b", "rsa_other")

    run(Setup(Provider()), scenario)


def test_the_algorithm_of_a_key_is_binding() -> None:
    """A key with an `alg` verifies this algorithm only; a key without one verifies all that fit its type."""

    async def scenario(setup: Setup) -> None:
        assert await setup.user("a", algorithm="RS512") == "42"
        for key, algorithm in (("rsa", "RS256"), ("P-256", "ES256"), ("ed25519", "EdDSA")):
            with pytest.raises(TokenInvalid, match=rf"^alg {algorithm} does not fit the key 'a' of jwks_url$"):
                await setup.user("a", key, algorithm)
        assert setup.provider.fetches == 1

    run(Setup(Provider(key_set(jwk("rsa", "a", alg="RS512")))), scenario)


def test_keys_of_different_types_may_share_a_kid() -> None:
    """RFC 7517 section 4.5: the algorithm of the token selects the key."""

    async def scenario(setup: Setup) -> None:
        assert await setup.user("a") == "42"
        assert await setup.user("a", "P-256", "ES256") == "42"

    run(Setup(Provider(key_set(jwk("rsa", "a"), jwk("P-256", "a")))), scenario)


def test_unsigned_and_unknown_algorithms_cause_no_fetch() -> None:
    """`none` and unknown algorithms are refused before the provider is asked."""
    setup = Setup(Provider())
    for alg in ("none", "PS256", "HS257"):
        with pytest.raises(TokenInvalid):
            at_once(setup.verifier.verify_connection(forged({"alg": alg, "kid": "a"}, {}, lambda _: b"")))
    assert setup.provider.fetches == 0
