"""Keys, tokens and helpers for the tests of authentication."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from beaconfire.auth.issue import sign_claims
from beaconfire.auth.options import TokenOptions
from beaconfire.auth.tokens import JWTVerifier
from beaconfire.base.clock import ManualClock
from beaconfire.model.events import Event
from beaconfire.policy.tokens import TokenError

T = TypeVar("T")

SECRET = "correct horse battery staple, thirty-two bytes"
NOW = 1_700_000_000.0
"""The initial time of a ManualClock."""

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey


class RecordedEvents:
    """A sink that stores events and calls `on_event`, if it is set."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.on_event: Callable[[Event], None] | None = None

    def emit(self, event: Event) -> None:
        self.events.append(event)
        if self.on_event is not None:
            self.on_event(event)


@functools.cache
def private_key(name: str) -> PrivateKey:
    """A key that is created once per run: rsa, rsa_other, rsa_small, P-256, P-384, P-521, secp256k1, ed25519, ed448."""
    match name:
        case "rsa" | "rsa_other":
            return rsa.generate_private_key(65537, 2048)
        case "rsa_small":
            return rsa.generate_private_key(65537, 1024)
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "P-521":
            return ec.generate_private_key(ec.SECP521R1())
        case "secp256k1":
            return ec.generate_private_key(ec.SECP256K1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return ed448.Ed448PrivateKey.generate()


def private_pem(name: str) -> str:
    return private_key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(name: str) -> str:
    return private_key(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def public_der(name: str) -> bytes:
    return private_key(name).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def jwk(name: str, kid: str, **members: object) -> dict[str, object]:
    """The public JSON Web Key of a sample key, with additional members."""
    key = private_key(name).public_key()
    if isinstance(key, rsa.RSAPublicKey):
        found: dict[str, object] = RSAAlgorithm.to_jwk(key, as_dict=True)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        found = ECAlgorithm.to_jwk(key, as_dict=True)
    else:
        found = OKPAlgorithm.to_jwk(key, as_dict=True)
    found.pop("key_ops", None)
    return found | {"kid": kid} | members


def key_set(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(header: object, claims: object, sign: Callable[[bytes], bytes]) -> str:
    """A token with any header and any signature, as an attacker can send it. Bytes are not encoded further."""
    parts = [part if isinstance(part, bytes) else msgspec.json.encode(part) for part in (header, claims)]
    signed = ".".join(map(base64url, parts))
    return f"{signed}.{base64url(sign(signed.encode()))}"


def hs256(key: bytes) -> Callable[[bytes], bytes]:
    return lambda message: hmac.new(key, message, hashlib.sha256).digest()


def token_of(**claims: object) -> str:
    """A token with exactly these claims, correctly signed with SECRET."""
    return sign_claims(SECRET, claims)


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that must not suspend: verification without a key set needs no event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise AssertionError("the coroutine suspended")


def make_verifier(options: TokenOptions | None = None, clock: ManualClock | None = None) -> JWTVerifier:
    return JWTVerifier(options or TokenOptions(hmac_secret=SECRET), clock or ManualClock(), RecordedEvents())


def refusal(
    token: str,
    kind: type[TokenError],
    options: TokenOptions | None = None,
    clock: ManualClock | None = None,
    *,
    subscription: bool = False,
) -> str:
    """The text with which a token is refused. Checks that the error is exactly `kind` and reveals no secret."""
    verifier = make_verifier(options, clock)
    with pytest.raises(kind) as caught:
        at_once(verifier.verify_subscription(token) if subscription else verifier.verify_connection(token))
    text = str(caught.value)
    assert SECRET not in text
    assert not any(len(part) > 8 and part in text for part in token.split("."))
    return text
