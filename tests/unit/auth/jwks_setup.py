"""Key set providers without a network, and a verifier that uses one of them on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from beaconfire.auth.issue import sign_claims
from beaconfire.auth.options import TokenOptions
from beaconfire.auth.tokens import JWTVerifier
from beaconfire.base.clock import ManualClock
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds
from beaconfire.policy.tokens import TokenInvalid

from .samples import SECRET, RecordedEvents, forged, jwk, key_set, private_pem, public_pem

URL = "https://keys.example/jwks"


class Provider:
    """An identity provider (a `KeySetSource`): returns `body`, or raises `error`, and counts the fetches."""

    def __init__(self, body: bytes = b"") -> None:
        self.body = body or key_set(jwk("rsa", "a"))
        self.error: Exception | None = None
        self.fetches = 0
        self.cancelled = 0
        self.closed = 0

    async def fetch(self) -> bytes:
        self.fetches += 1
        if self.error is not None:
            raise self.error
        return self.body

    async def close(self) -> None:
        self.closed += 1


class SlowProvider(Provider):
    """Each fetch waits for `release`; `started` is set as soon as a fetch begins."""

    def __init__(self) -> None:
        super().__init__()
        self.started = asyncio.Event()
        self.release = asyncio.Event()

    async def fetch(self) -> bytes:
        body = await super().fetch()
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return body


class TimedProvider(Provider):
    """Each fetch takes `duration_s` of the virtual clock behind `timers`. Returns the body as of its start."""

    def __init__(self, duration_s: float) -> None:
        super().__init__()
        self.duration_s = duration_s
        self.timers: Timers | None = None

    async def fetch(self) -> bytes:
        body = await super().fetch()
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        assert self.timers is not None
        self.timers.after(self.duration_s, lambda: answered.set_result(None))
        await answered
        return body


class Setup:
    """A verifier that uses the key set of `provider`, on a virtual clock."""

    def __init__(self, provider: Provider, timeout_s: float = 3, cache_ttl_s: float = 3600) -> None:
        self.clock = ManualClock()
        self.timers = Timers(self.clock)
        self.events = RecordedEvents()
        self.provider = provider
        options = TokenOptions(
            jwks_url=URL,
            jwks_timeout=Seconds(timeout_s),
            jwks_cache_ttl=Seconds(cache_ttl_s),
            hmac_secret=SECRET,
            rsa_public_key=public_pem("rsa_other"),
        )
        self.verifier = JWTVerifier(options, self.clock, self.events, source=provider, later=self.timers.after)

        if isinstance(provider, TimedProvider):
            provider.timers = self.timers

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()

    async def wait_for_timer(self) -> None:
        """Returns when a token waits for the end of the interval between two fetches."""
        async with asyncio.timeout(20):
            while not len(self.timers):  # noqa: ASYNC110 - timers have no event for being set
                await asyncio.sleep(0)

    async def user(self, kid: str, key: str = "rsa", algorithm: str = "RS256") -> str:
        """The user of a valid token with this kid."""
        return (await self.verifier.verify_connection(signed(kid, key, algorithm))).user

    async def error(self, kid: str, kind: type[Exception] = TokenInvalid) -> str:
        """The text of the error with which a token with this kid is refused."""
        with pytest.raises(kind) as caught:
            await self.user(kid)
        assert type(caught.value) is kind
        return str(caught.value)


def signed(kid: str, key: str = "rsa", algorithm: str = "RS256") -> str:
    return sign_claims(private_pem(key), {"sub": "42"}, algorithm=algorithm, kid=kid)


def invented(kid: str) -> str:
    """A token that no key has signed: cheaper to make than to refuse."""
    return forged({"alg": "EdDSA", "kid": kid}, {}, lambda _: b"no signature")


async def settle() -> None:
    """Runs everything that can run without time passing."""
    for _ in range(10):
        await asyncio.sleep(0)


def run(setup: Setup, scenario: Callable[[Setup], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario(setup)
        await setup.verifier.close()

    asyncio.run(main())
