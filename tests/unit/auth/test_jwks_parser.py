"""Reading a key set: which keys are used, which are skipped, and what is not a key set at all."""

from __future__ import annotations

import asyncio

import pytest

from beaconfire.auth.algorithms import EDDSA, RSA
from beaconfire.auth.jwks_parser import KEYS_PER_TURN, read_keys

from .samples import at_once, jwk, key_set

UNUSABLE_KEYS: dict[str, object] = {
    "for encryption": jwk("rsa_other", "bad", use="enc"),
    "not for verifying": jwk("rsa_other", "bad", key_ops=["encrypt"]),
    "alg for encryption": jwk("rsa_other", "bad", alg="RSA-OAEP"),
    "alg of another type": jwk("rsa_other", "bad", alg="ES256"),
    "alg of another curve": jwk("P-256", "bad", alg="ES384"),
    "alg of HMAC": jwk("rsa_other", "bad", alg="HS256"),
    "too small": jwk("rsa_small", "bad"),
    "a secret": {"kty": "oct", "kid": "bad", "k": "c2VjcmV0"},
    "unknown kty": {"kty": "AKP", "kid": "bad"},
    "no kty": {"kid": "bad"},
    "no kid": {name: value for name, value in jwk("rsa_other", "").items() if name != "kid"},
    "kid of wrong type": jwk("rsa_other", "bad") | {"kid": 7},
    "empty kid": jwk("rsa_other", ""),
    "members missing": {"kty": "RSA", "kid": "bad", "e": "AQAB"},
    "members of wrong type": {"kty": "RSA", "kid": "bad", "n": 1, "e": "AQAB"},
    "members not base64": {"kty": "RSA", "kid": "bad", "n": "ä", "e": "AQAB"},
    "unknown curve": {"kty": "EC", "kid": "bad", "crv": "P-192", "x": "AA", "y": "AA"},
    "unused curve": jwk("secp256k1", "bad"),
    "point not on the curve": jwk("P-256", "bad", y="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    "Ed448": jwk("ed448", "bad"),
    "short Ed25519": {"kty": "OKP", "kid": "bad", "crv": "Ed25519", "x": "AAAA"},
    "no object": 7,
    "null": None,
}


@pytest.mark.parametrize("name", UNUSABLE_KEYS)
def test_an_unusable_key_is_skipped(name: str) -> None:
    """A key that cannot verify tokens is skipped; the keys before and after it are used."""
    keys = at_once(read_keys(key_set(jwk("rsa", "first"), UNUSABLE_KEYS[name], jwk("ed25519", "last"))))
    assert {kid: key[0].algorithms for kid, key in keys.items()} == {"first": RSA, "last": EDDSA}


def test_optional_members_of_a_key() -> None:
    """`use`, `key_ops` and `alg` may be present, null or missing, and unknown members are ignored."""
    body = key_set(
        jwk("rsa", "a", use="sig", key_ops=["verify"], alg="RS256", x5c=["…"], x5t="…"),
        jwk("P-521", "b", use=None, alg=None, key_ops=None),
    )
    keys = at_once(read_keys(body))
    assert {kid: key[0].algorithms for kid, key in keys.items()} == {"a": ("RS256",), "b": ("ES512",)}


def test_private_members_are_not_kept() -> None:
    """If a provider publishes its private key by mistake, only the public half is used."""
    keys = at_once(read_keys(key_set(jwk("rsa", "a", d="AAAA", p="AAAA", q="AAAA"))))
    assert not hasattr(keys["a"][0].key, "sign")


def test_a_large_key_set_does_not_block_the_event_loop() -> None:
    """Other work runs after every `KEYS_PER_TURN` keys; a usual key set is read without a pause."""
    usual = [jwk("ed25519", str(number)) for number in range(KEYS_PER_TURN - 1)]
    assert len(at_once(read_keys(key_set(*usual)))) == len(usual)

    async def scenario() -> None:
        large = [jwk("ed25519", str(number)) for number in range(3 * KEYS_PER_TURN)]
        reading = asyncio.ensure_future(read_keys(key_set(*large)))
        for _ in range(3):
            await asyncio.sleep(0)
            assert not reading.done()
        assert len(await reading) == len(large)

    asyncio.run(scenario())
