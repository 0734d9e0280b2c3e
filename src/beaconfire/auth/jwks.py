"""The JSON Web Key Set of an identity provider (RFC 7517): cached, refreshed, and kept during outages.

Theory of operation. `KeySet.find` is called for every token with a `kid`.

- Age. A key set is used without asking the provider for `jwks_cache_ttl`. After that, `find` waits for a new one, so
  that a key that the provider has removed stops working. If this fetch fails, the old keys stay in use: an outage of
  the provider does not disconnect clients.
- Unknown kids. Providers rotate their keys, so a `kid` that is not in the set causes a fetch. A token is invalid,
  which is final for most clients, only if a fetch that began after the token arrived shows that the provider does not
  have its key. An earlier fetch may have been answered before the rotation, and a failed fetch proves nothing: then
  the token is unverifiable, which is a temporary error.
- Attacks. Any client can send tokens with invented kids, from any number of addresses. So no rule here depends on the
  kid or the client. Fetches that unknown kids cause begin at least `FETCH_INTERVAL_MIN_S` apart: invented kids neither
  flood the provider nor keep new keys away, because the fetch that an invented kid causes returns the new keys, too.
  A token that arrives within the interval waits for the fetch that follows.
- Waiting tokens. At most `UNKNOWN_KIDS_MAX` tokens with unknown kids wait at the same time; further ones are
  unverifiable immediately, since all of the waiting tokens are answered in one turn of the event loop. When keys
  rotate during a flood of invented kids, the new keys are known after `FETCH_INTERVAL_MIN_S` and two fetches (the
  current one and the next); from then on, the flood does not affect tokens with these keys.
- Failures. After a failed fetch, the provider is not asked again for `jwks_negative_ttl`.
- Concurrency. Only one fetch runs at a time, in a task of its own, and all callers wait for this one. All methods run
  on one event loop, so there are no locks.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from beaconfire.auth.algorithms import VerificationKey
from beaconfire.auth.jwks_parser import Keys, quote_kid, read_keys
from beaconfire.auth.options import TokenOptions
from beaconfire.base.clock import Clock
from beaconfire.base.timers import CallLater, Cancellable
from beaconfire.model.events import EventSink, LimitHit, TokenKeysFetched
from beaconfire.policy.tokens import TokenInvalid, TokenUnverifiable

UNKNOWN_KIDS_MAX: Final = 32
"""Tokens with an unknown kid that may wait for a fetch at the same time."""

FETCH_INTERVAL_MIN_S: Final = 1.0
"""Seconds from the start of one fetch to the earliest start of the next one that an unknown kid causes."""


class KeySetSource(Protocol):
    """Reads the document of a key set from the provider."""

    async def fetch(self) -> bytes:
        """The document. Is cancelled at the deadline. May raise any Exception; its text goes into the event."""

    async def close(self) -> None:
        """Closes all connections. No `fetch` runs when this is called. May be called more than once."""


class KeySet:
    """The keys of the provider at `jwks_url`. All methods must be called on one event loop."""

    def __init__(
        self,
        options: TokenOptions,
        clock: Clock,
        events: EventSink,
        source: KeySetSource,
        later: CallLater | None = None,
    ) -> None:
        """`later` starts the timer between two fetches; None is the running event loop's `call_later`."""
        self._cache_ttl_s = float(options.jwks_cache_ttl)
        self._negative_ttl_s = float(options.jwks_negative_ttl)
        self._timeout_s = float(options.jwks_timeout)
        self._clock = clock
        self._events = events
        self._source = source
        self._later = later
        self._keys: Keys = {}
        self._keys_number = 0
        """The number of the fetch that returned the current keys."""
        self._fresh_until_s = float("-inf")
        self._retry_at_s = float("-inf")
        self._error = ""
        """Why the latest fetch failed; empty if it did not."""
        self._fetch_number = 0
        """The number of the latest fetch that began."""
        self._fetch_started_s = float("-inf")
        self._fetch_task: asyncio.Task[None] | None = None
        self._fetch_timer: Cancellable | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._unknown_waiting = 0
        self._closed = False

    async def find(self, kid: str, algorithm: str) -> VerificationKey:
        """The key with this id that may be used with `algorithm`.

        Raises TokenInvalid if the set has no such key. Raises TokenUnverifiable if this cannot be decided now, because
        the fetch failed or too many tokens wait. Suspends only while a fetch is needed: at most for two fetches and
        the interval between them.
        """
        number = self._fetch_number
        if self._clock.now_s() >= self._fresh_until_s:
            await self._wait_for_fetch(0.0)
        if kid not in self._keys:
            await self._wait_for_kid(kid, number)
        for key in self._keys[kid]:
            if algorithm in key.algorithms:
                return key
        raise TokenInvalid(f"alg {algorithm} does not fit the key {quote_kid(kid)} of jwks_url")

    async def close(self) -> None:
        """Cancels the fetch and closes the source. Tokens that wait, and all later ones, are unverifiable."""
        self._closed = True
        self._error = self._error or "the server is shutting down"
        self._cancel_timer()
        if self._fetch_task is not None:
            self._fetch_task.cancel()
            await asyncio.wait([self._fetch_task])
        self._release_waiters()
        await self._source.close()

    async def _wait_for_kid(self, kid: str, number: int) -> None:
        """Waits until the kid is in the set.

        Raises TokenInvalid if a fetch later than `number` shows that the provider does not have the kid,
        TokenUnverifiable if there is no such fetch.
        """
        if self._unknown_waiting >= UNKNOWN_KIDS_MAX:
            self._events.emit(LimitHit("jwks_unknown_kids_max", ""))
            raise TokenUnverifiable(
                f"kid {quote_kid(kid)} is unknown, and too many tokens wait for the key set of jwks_url"
            )
        self._unknown_waiting += 1
        try:
            while kid not in self._keys:
                if self._keys_number > number:
                    raise TokenInvalid(f"kid {quote_kid(kid)} is not in the key set of jwks_url")
                if not await self._wait_for_fetch(FETCH_INTERVAL_MIN_S) or self._error:
                    raise TokenUnverifiable(f"the keys of jwks_url could not be fetched: {self._error}")
        finally:
            self._unknown_waiting -= 1

    # --- the fetch ---

    async def _wait_for_fetch(self, interval_s: float) -> bool:
        """Waits for the end of the running fetch, or of the next one.

        If no fetch runs, the next one starts `interval_s` after the start of the latest. Returns False without waiting
        if the latest fetch failed too recently to ask again; then `_error` says why it failed.
        """
        if self._closed:
            return False
        if self._fetch_task is None:
            now_s = self._clock.now_s()
            if now_s < self._retry_at_s:
                return False
            if (delay_s := self._fetch_started_s + interval_s - now_s) > 0:
                self._start_timer(delay_s)
            else:
                self._start_fetch()
        # Each caller has its own future: a cancelled caller cancels the future it waits for, and others still wait.
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter
        return True

    def _start_timer(self, delay_s: float) -> None:
        if self._fetch_timer is None:
            self._fetch_timer = (self._later or asyncio.get_running_loop().call_later)(delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._fetch_timer = None
        if self._waiters and self._fetch_task is None:
            self._start_fetch()

    def _cancel_timer(self) -> None:
        if self._fetch_timer is not None:
            self._fetch_timer.cancel()
            self._fetch_timer = None

    def _start_fetch(self) -> None:
        self._cancel_timer()  # the callers that wait for the timer get the result of this fetch
        self._fetch_number += 1
        self._fetch_started_s = self._clock.now_s()
        self._fetch_task = asyncio.get_running_loop().create_task(self._fetch())

    async def _fetch(self) -> None:
        """One fetch: sets the keys or the error, then wakes all waiters. Raises CancelledError only."""
        try:
            async with asyncio.timeout(self._timeout_s):
                keys = await read_keys(await self._source.fetch())
        except asyncio.CancelledError:
            if not self._closed:
                self._set_error("cancelled")
            raise
        except TimeoutError:
            self._set_error(f"no answer within {self._timeout_s:g} s")
        except Exception as error:  # noqa: BLE001 - any error of the source or the document is a failed fetch
            self._set_error(f"{type(error).__name__}: {error}")
        else:
            self._set_keys(keys)
        finally:
            self._fetch_task = None
            self._release_waiters()

    def _set_keys(self, keys: Keys) -> None:
        self._keys = keys
        self._keys_number = self._fetch_number
        self._fresh_until_s = self._clock.now_s() + self._cache_ttl_s
        self._retry_at_s = float("-inf")
        self._error = ""
        self._events.emit(TokenKeysFetched(len(keys), ""))

    def _set_error(self, error: str) -> None:
        self._error = error
        self._retry_at_s = self._clock.now_s() + self._negative_ttl_s
        self._events.emit(TokenKeysFetched(len(self._keys), error))

    def _release_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
