"""Connection and subscription tokens: JWTs that a backend signs and this server verifies.

Three steps, each in its place: the header chooses the keys (here, and `jwks` for key sets), a key checks the signature
(`algorithms`), and the claims become our words and are held against the clock (`claims`).
"""

from __future__ import annotations

from typing import Final, TypeVar

from msgspec import Struct

from beaconfire.auth.algorithms import (
    HMAC,
    OPTION_OF,
    TOKEN_LENGTH_MAX,
    SignatureMismatch,
    TokenHeader,
    VerificationKey,
    hmac_key,
    pem_key,
    read_header,
    verified_payload,
)
from beaconfire.auth.claims import Claims, check_claims, parse_claims, read_identity, read_subscription
from beaconfire.auth.fetch import check_url, fetch_body
from beaconfire.auth.jwks import Fetch, KeySet
from beaconfire.auth.options import TokenOptions
from beaconfire.clock import Clock
from beaconfire.events import EventSink, LimitHit
from beaconfire.identity import Identity, SubscriptionClaims, TokenInvalid

HMAC_SECRET_BYTES_MIN: Final = 32
"""RFC 7518 section 3.2 asks for as many bytes as the digest has. Shorter ones work, and deserve a warning."""

T = TypeVar("T")


class _StaticKey(Struct, frozen=True):
    """A key from the settings; `until_unix_s` is when it stops being accepted."""

    key: VerificationKey
    until_unix_s: float = float("inf")


class JWTVerifier:
    """Verifies tokens with the configured keys (`identity.TokenVerifier`).

    Suspends only while a key set has to be fetched. Error texts name the claim or check that failed and what was
    expected, and hold neither token nor secret.
    """

    def __init__(self, options: TokenOptions, clock: Clock, events: EventSink, fetch: Fetch = fetch_body) -> None:
        """Raises ValueError that names the setting and the remedy. `fetch` gets the key set, in a thread."""
        self._options = options
        self._clock = clock
        self._events = events
        self._static_keys = _static_keys(options)
        self._key_set: KeySet | None = None
        if options.jwks_url:
            check_url(options.jwks_url, "token.jwks_url")
            self._key_set = KeySet(options, clock, events, fetch)

    async def verify_connection(self, token: str) -> Identity:
        """Raises TokenExpired, TokenInvalid or TokenUnverifiable."""
        claims = await self._signed_claims(token)
        identity = read_identity(claims, self._options)
        check_claims(claims, self._options, self._clock.unix_s())
        return identity

    async def verify_subscription(self, token: str) -> SubscriptionClaims:
        """Raises TokenExpired, TokenInvalid or TokenUnverifiable. Whose and what for is the caller's to compare."""
        claims = await self._signed_claims(token)
        subscription = read_subscription(claims, self._options)
        check_claims(claims, self._options, self._clock.unix_s())
        return subscription

    async def _signed_claims(self, token: str) -> Claims:
        """The claims of a token with a good signature, nothing else checked yet.

        This is nearly all of the cost, and its result holds as long as the key does: a cache would go here.
        """
        if len(token) > TOKEN_LENGTH_MAX:
            self._events.emit(LimitHit("token_length_max", ""))
        header = read_header(token)
        if self._key_set is not None and header.kid and header.alg not in HMAC:
            _check_supported(header.alg)
            key = await self._key_set.find(header.kid, header.alg)
            return parse_claims(verified_payload(token, key))
        mismatch: SignatureMismatch | None = None
        for key in self._keys_for(header):
            try:
                return parse_claims(verified_payload(token, key))
            except SignatureMismatch as error:
                mismatch = mismatch or error
        raise mismatch or TokenInvalid("no key is valid any more")

    def _keys_for(self, header: TokenHeader) -> list[VerificationKey]:
        """The configured keys that may be used with the header's algorithm, the preferred one first."""
        _check_supported(header.alg)
        static_keys = self._static_keys.get(header.alg, ())
        if not static_keys:
            option = OPTION_OF[header.alg]
            if self._key_set is not None and header.alg not in HMAC:
                raise TokenInvalid(f"alg {header.alg} needs a kid of the key set of token.jwks_url, or {option}")
            raise TokenInvalid(f"alg {header.alg} is not accepted: no {option} for it is configured")
        now_unix_s = self._clock.unix_s()
        return [static.key for static in static_keys if now_unix_s < static.until_unix_s]


def _check_supported(algorithm: str) -> None:
    if algorithm.lower() == "none":
        raise TokenInvalid("alg none is never accepted: the token is not signed")
    if algorithm not in OPTION_OF:
        raise TokenInvalid(f"alg {algorithm[:16]!r} is not supported; expected one of {', '.join(OPTION_OF)}")


def _static_keys(options: TokenOptions) -> dict[str, tuple[_StaticKey, ...]]:
    """The configured keys by algorithm. Raises ValueError that names the setting."""
    keys: dict[str, tuple[_StaticKey, ...]] = {}
    if options.hmac_secret:
        secret = hmac_key(options.hmac_secret, "token.hmac_secret")
        keys |= dict.fromkeys(HMAC, (_StaticKey(VerificationKey(secret, HMAC, "token.hmac_secret")),))
    if options.hmac_previous_secret:
        if not options.hmac_secret:
            raise ValueError("token.hmac_previous_secret: expected token.hmac_secret beside it; a lone one goes there")
        option = "token.hmac_previous_secret"
        until_unix_s = options.hmac_previous_secret_valid_until or float("inf")
        previous = VerificationKey(hmac_key(options.hmac_previous_secret, option), HMAC, option)
        keys |= dict.fromkeys(HMAC, (*keys[HMAC[0]], _StaticKey(previous, until_unix_s)))
    for option in ("rsa_public_key", "ecdsa_public_key", "eddsa_public_key"):
        if pem := getattr(options, option):
            key = pem_key(pem, f"token.{option}")
            keys |= dict.fromkeys(key.algorithms, (_StaticKey(key),))
    return keys


def weaknesses(options: TokenOptions) -> list[str]:
    """What is worth a loud warning at start-up: settings that work and should not be used in production."""
    found = [
        f"token.{name} is shorter than {HMAC_SECRET_BYTES_MIN} bytes and can be guessed from any token"
        for name in ("hmac_secret", "hmac_previous_secret")
        if 0 < len(getattr(options, name).encode()) < HMAC_SECRET_BYTES_MIN
    ]
    if options.jwks_url.startswith("http:"):
        found.append("token.jwks_url is not https: whoever is on the way can replace the keys")
    return found
