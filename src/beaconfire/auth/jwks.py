"""The JSON Web Key Set of an identity provider (RFC 7517): fetched, cached and kept through outages.

Theory of operation. `find` is called for every token with a `kid`.

- The set is used unasked for `jwks_cache_ttl`. After that a call waits for a fresh one, so that a key taken out of the
  set stops working; but if the fetch fails, the old keys go on serving: an outage of the provider takes nobody down.
- A `kid` that is not in the set is a reason to ask again, because keys rotate. Only a fetch that began after the token
  came proves that the provider does not have the key, and only then is the token invalid, which is final for most
  clients. A fetch that began earlier may have been answered before the keys rotated, and one that could not be made
  proves nothing: the token is then unverifiable, which is an error that passes.
- Anybody can invent kids, from any number of addresses, so nothing here depends on which kid was asked for or by whom.
  Fetches for unknown kids begin at least `FETCH_PAUSE_S` apart, whoever caused them: invented kids cannot turn this
  server against the provider, and cannot keep new keys away, because the fetch that an invented kid causes brings the
  new keys just as well. A token that comes within the pause waits for the fetch after it.
- `UNKNOWN_KIDS_MAX` tokens may wait like that. Further ones are unverifiable at once, as all of them are answered in
  one turn of the event loop. Keys that rotate during a flood of invented kids are known `FETCH_PAUSE_S` and the
  duration of two fetches later at most (the one in flight and the next); then the flood concerns them no longer.
- After a failed fetch nobody asks again for `jwks_negative_ttl`.
- One fetch is in flight at a time and everybody who needs one waits for the same. It runs in a thread; what it brings
  is applied on the event loop, so that nothing here needs a lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWTError
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from msgspec import Raw, Struct

from beaconfire.auth.algorithms import PublicKey, VerificationKey, algorithms_of
from beaconfire.auth.fetch import fetch_body
from beaconfire.auth.options import TokenOptions
from beaconfire.base.clock import Clock
from beaconfire.base.timers import CallLater, Cancellable
from beaconfire.model.events import EventSink, LimitHit, TokenKeysFetched
from beaconfire.policy.tokens import TokenInvalid, TokenUnverifiable

UNKNOWN_KIDS_MAX: Final = 32
"""Tokens with an unknown kid that may wait for a fetch."""

FETCH_PAUSE_S: Final = 1.0
"""Seconds from the beginning of one fetch to the earliest beginning of another that an unknown kid causes."""

Keys: TypeAlias = dict[str, tuple[VerificationKey, ...]]
"""By kid. RFC 7517 section 4.5 lets keys of different types share one."""

Fetch: TypeAlias = Callable[[str, float], bytes]
"""Gets a URL's body within a number of seconds, in a thread. May raise anything; the text goes into the event."""


class KeySet:
    """The keys behind `jwks_url`. All methods belong to the event loop's thread."""

    def __init__(
        self,
        options: TokenOptions,
        clock: Clock,
        events: EventSink,
        fetch: Fetch = fetch_body,
        later: CallLater | None = None,
    ) -> None:
        """`later` ends the pause between fetches; None is the running event loop's `call_later`."""
        self._url = options.jwks_url
        self._cache_ttl_s = float(options.jwks_cache_ttl)
        self._negative_ttl_s = float(options.jwks_negative_ttl)
        self._timeout_s = float(options.jwks_timeout)
        self._clock = clock
        self._events = events
        self._fetch = fetch
        self._later = later
        self._keys: Keys = {}
        self._fresh_until_s = float("-inf")
        self._retry_at_s = float("-inf")
        self._error = ""
        self._begun = 0
        """Fetches begun so far, and so the number of the latest."""
        self._begun_at_s = float("-inf")
        self._applied = 0
        """The number of the fetch that brought the present keys."""
        self._unknown_waiting = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._pausing: Cancellable | None = None
        self._fetching = False
        self._overdue = False

    async def find(self, kid: str, algorithm: str) -> VerificationKey:
        """The key with this id that may be used with `algorithm`.

        Raises TokenInvalid if the set has none, TokenUnverifiable if that can't be told now, because the set could not
        be fetched or too many others are waiting for it. Suspends only while a fetch is needed: for two fetches and
        the pause between them at most.
        """
        begun = self._begun
        if self._clock.now_s() >= self._fresh_until_s:
            await self._wait_fetched(0.0)
        if kid not in self._keys:
            await self._search(kid, begun)
        for key in self._keys[kid]:
            if algorithm in key.algorithms:
                return key
        raise TokenInvalid(f"alg {algorithm} does not fit the key {_shown(kid)} of jwks_url")

    async def _search(self, kid: str, begun: int) -> None:
        """Waits until the kid is in the set. Raises TokenInvalid once a fetch later than number `begun` has shown that
        the provider does not have it, TokenUnverifiable if there is none.
        """
        if self._unknown_waiting >= UNKNOWN_KIDS_MAX:
            self._events.emit(LimitHit("jwks_unknown_kids_max", ""))
            raise TokenUnverifiable(f"kid {_shown(kid)} is unknown, and too many wait for the key set of jwks_url")
        self._unknown_waiting += 1
        try:
            while kid not in self._keys:
                if self._applied > begun:
                    raise TokenInvalid(f"kid {_shown(kid)} is not in the key set of jwks_url")
                if not await self._wait_fetched(FETCH_PAUSE_S) or self._error:
                    raise TokenUnverifiable(f"the keys of jwks_url could not be fetched: {self._error}")
        finally:
            self._unknown_waiting -= 1

    # --- the fetch ---

    async def _wait_fetched(self, pause_s: float) -> bool:
        """Joins the fetch in flight, or starts one as soon as the latest began `pause_s` ago, and waits for its end.

        False, at once, if the last one failed too recently to ask again or has missed its deadline and hangs; then
        `_error` says why.
        """
        if self._overdue:
            return False
        if not self._fetching:
            now_s = self._clock.now_s()
            if now_s < self._retry_at_s:
                return False
            if (left_s := self._begun_at_s + pause_s - now_s) > 0:
                self._pause(left_s)
            else:
                self._start_fetch()
        # A future of one's own: a cancelled task cancels the future it waits for, and others wait for this fetch too.
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter
        return True

    def _pause(self, left_s: float) -> None:
        if self._pausing is None:
            self._pausing = (self._later or asyncio.get_running_loop().call_later)(left_s, self._on_pause_over)

    def _on_pause_over(self) -> None:
        self._pausing = None
        if self._waiters and not self._fetching:
            self._start_fetch()

    def _start_fetch(self) -> None:
        loop = asyncio.get_running_loop()
        if self._pausing is not None:  # those who wait for its end are served now, and the next pause begins
            self._pausing.cancel()
            self._pausing = None
        self._fetching = True
        self._begun += 1
        self._begun_at_s = self._clock.now_s()
        fetched = loop.run_in_executor(None, _load, self._fetch, self._url, self._timeout_s)
        # The thread keeps its own deadline, but nothing can hurry a name lookup: waiters do not wait for that.
        deadline = loop.call_later(self._timeout_s, self._on_timeout)

        def on_done(future: asyncio.Future[Keys]) -> None:
            deadline.cancel()
            self._on_fetched(future)

        fetched.add_done_callback(on_done)

    def _on_fetched(self, future: asyncio.Future[Keys]) -> None:
        self._fetching = self._overdue = False
        if future.cancelled():
            self._fail("cancelled")
        elif (error := future.exception()) is not None:
            self._fail(f"{type(error).__name__}: {error}")
        else:
            self._keys = future.result()
            self._applied = self._begun
            self._fresh_until_s = self._clock.now_s() + self._cache_ttl_s
            self._retry_at_s = float("-inf")
            self._error = ""
            self._events.emit(TokenKeysFetched(len(self._keys), ""))
        self._release()

    def _on_timeout(self) -> None:
        """The thread is late. It stays the one in flight, and if it succeeds after all its keys are taken."""
        self._overdue = True
        self._fail(f"no answer within {self._timeout_s:g} s")
        self._release()

    def _fail(self, error: str) -> None:
        self._error = error
        self._retry_at_s = self._clock.now_s() + self._negative_ttl_s
        self._events.emit(TokenKeysFetched(len(self._keys), error))

    def _release(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _load(fetch: Fetch, url: str, timeout_s: float) -> Keys:
    """In the thread: parsing keys takes long enough to be kept off the event loop."""
    return read_keys(fetch(url, timeout_s))


# --- reading a key set -------------------------------------------------------------------------------------------


class _JWK(Struct, frozen=True):
    """The members of a key that concern a verifier. Private ones are not even read."""

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


def read_keys(body: bytes) -> Keys:
    """The usable keys of a key set. A key that cannot be used for verifying a token is skipped, whatever the reason.

    Raises ValueError if the body is no key set at all. An empty one is an answer: no key is valid.
    """
    try:
        members = _JWK_SET_DECODER.decode(body).keys
    except (ValueError, RecursionError):
        raise ValueError('the answer is no JSON Web Key Set: expected {"keys": [...]}') from None
    keys: Keys = {}
    for member in members:
        try:
            jwk = _JWK_DECODER.decode(member)
            key = _verification_key(jwk)
        except (ValueError, TypeError, RecursionError, PyJWTError, UnsupportedAlgorithm):
            continue  # RFC 7517 section 5: ignore keys that are not understood, lack members or have bad values
        keys[jwk.kid] = (*keys.get(jwk.kid, ()), key)
    return keys


def _verification_key(jwk: _JWK) -> VerificationKey:
    """Raises ValueError, TypeError or PyJWTError for a key that is not for verifying signatures of our algorithms."""
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
    return VerificationKey(key, algorithms, f"the key {_shown(jwk.kid)} of jwks_url")


def _public_key(jwk: _JWK) -> PublicKey:
    """`oct` is deliberately not here: a secret has no place in a public key set."""
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


def _shown(kid: str) -> str:
    """A kid for error texts: whoever made the token chose it, so it is quoted and cut."""
    return repr(kid if len(kid) <= 40 else kid[:40] + "…")
