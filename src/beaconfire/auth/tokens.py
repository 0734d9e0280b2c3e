"""Verifies connection and subscription tokens: JWTs that a backend signs.

Verification has three steps: the header selects the keys (here, from `static_keys` or `jwks`), a key verifies the
signature (`algorithms`), and the claims are converted to model types and checked against the clock (`claims`).
"""

from __future__ import annotations

from beaconfire.auth.algorithms import (
    HMAC,
    OPTION_OF,
    TOKEN_LENGTH_MAX,
    SignatureMismatch,
    VerificationKey,
    read_token,
    verified_payload,
)
from beaconfire.auth.claims import Claims, check_claims, parse_claims, read_identity, read_subscription
from beaconfire.auth.jwks import KeySet, KeySetSource
from beaconfire.auth.options import TokenOptions
from beaconfire.auth.static_keys import StaticKeys
from beaconfire.auth.verified_tokens import VerifiedTokens
from beaconfire.base.clock import Clock
from beaconfire.base.timers import CallLater
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.model.grants import SubscriptionClaims
from beaconfire.model.identity import Identity
from beaconfire.policy.tokens import TokenInvalid


class JWTVerifier:
    """Verifies tokens with the configured keys (implements `policy.tokens.TokenVerifier`).

    Suspends only while a key set is fetched. Error texts name the claim or check that failed and what was expected;
    they contain neither the token nor a secret.
    """

    def __init__(
        self,
        options: TokenOptions,
        clock: Clock,
        events: EventSink,
        *,
        section: str = "token",
        source: KeySetSource | None = None,
        later: CallLater | None = None,
    ) -> None:
        """Raises ValueError that names each wrong setting and its remedy.

        Args:
            section: the section of the settings that `options` come from, for error texts.
            source: reads the key set; None is HTTP from `jwks_url`.
            later: starts the timer between two fetches of the key set; None is the event loop's `call_later`.
        """
        self._options = options
        self._clock = clock
        self._events = events
        self._section = section
        self._static_keys = StaticKeys(options, section)
        self._verified = VerifiedTokens()
        self._key_set: KeySet | None = None
        if options.jwks_url:
            self._key_set = KeySet(options, clock, events, source or _http_source(options.jwks_url), later)

    @property
    def suspends(self) -> bool:
        """True with a key set."""
        return self._key_set is not None

    async def close(self) -> None:
        """Ends the fetch of the key set, if one runs, and closes its connections. May be called more than once."""
        if self._key_set is not None:
            await self._key_set.close()

    async def verify_connection(self, token: str) -> Identity:
        """Raises TokenExpired, TokenInvalid or TokenUnverifiable."""
        claims = await self._signed_claims(token)
        identity = read_identity(claims, self._options)
        check_claims(claims, self._options, self._clock.unix_s())
        return identity

    async def verify_subscription(self, token: str) -> SubscriptionClaims:
        """Raises TokenExpired, TokenInvalid or TokenUnverifiable. The caller must check user, client and channel."""
        claims = await self._signed_claims(token)
        subscription = read_subscription(claims, self._options)
        check_claims(claims, self._options, self._clock.unix_s())
        return subscription

    async def _signed_claims(self, token: str) -> Claims:
        """The claims of a token with a valid signature. No claim is checked yet.

        A token that was verified before with a key that is still in use is not verified again.
        """
        if len(token) > TOKEN_LENGTH_MAX:
            self._events.emit(LimitHit("token_length_max", ""))
        unverified = read_token(token)
        header = unverified.header
        _check_supported(header.alg)
        if self._key_set is not None and header.kid and header.alg not in HMAC:
            keys = [await self._key_set.find(header.kid, header.alg)]
        else:
            keys = self._configured_keys(header.alg)
        known = self._verified.find(token, keys)
        if known is not None:
            return known
        mismatch: SignatureMismatch | None = None
        for key in keys:
            try:
                claims = parse_claims(verified_payload(unverified, key))
            except SignatureMismatch as error:
                mismatch = mismatch or error
            else:
                self._verified.add(token, key, claims)
                return claims
        assert mismatch is not None
        raise mismatch

    def _configured_keys(self, algorithm: str) -> list[VerificationKey]:
        """The keys in the settings for `algorithm`, at least one. Raises TokenInvalid if there is none."""
        keys = self._static_keys.valid_for(algorithm, self._clock.unix_s())
        if not keys:
            option = f"{self._section}.{OPTION_OF[algorithm]}"
            if self._key_set is not None and algorithm not in HMAC:
                raise TokenInvalid(f"alg {algorithm} without a kid needs {option}, which holds no key for it")
            raise TokenInvalid(f"alg {algorithm} is not accepted: {option} holds no key for it")
        return keys


def _http_source(url: str) -> KeySetSource:
    # aiohttp takes about 170 ms to import, so only servers with a key set import it, and they do so at start-up: an
    # import at the first fetch would block the event loop.
    from beaconfire.auth.jwks_http import HttpKeySetSource

    return HttpKeySetSource(url)


def _check_supported(algorithm: str) -> None:
    if algorithm.lower() == "none":
        raise TokenInvalid("alg none is never accepted: the token is not signed")
    if algorithm not in OPTION_OF:
        raise TokenInvalid(f"alg {algorithm[:16]!r} is not supported; expected one of {', '.join(OPTION_OF)}")
