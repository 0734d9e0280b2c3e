"""Key sets: caching, rotation, outages and concurrent fetches. No network: each test has its own provider."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from beaconfire.auth.issue import sign_claims
from beaconfire.auth.jwks import FETCH_INTERVAL_MIN_S, UNKNOWN_KIDS_MAX
from beaconfire.auth.options import TokenOptions
from beaconfire.auth.tokens import JWTVerifier
from beaconfire.base.clock import ManualClock
from beaconfire.base.tasks import run_eagerly
from beaconfire.base.timers import Timers
from beaconfire.base.units import Seconds
from beaconfire.model.events import Event, LimitHit, TokenKeysFetched
from beaconfire.model.identity import Identity
from beaconfire.policy.tokens import TokenInvalid, TokenUnverifiable

from .samples import SECRET, RecordedEvents, at_once, forged, hs256, jwk, key_set, private_pem, public_pem, token_of

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


# --- which key ---------------------------------------------------------------------------------------------------


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


# --- caching and rotation ----------------------------------------------------------------------------------------


def test_the_set_is_fetched_once_per_ttl() -> None:
    """A fresh set is used without a fetch. After its ttl the next token waits for a new set without removed keys."""

    async def scenario(setup: Setup) -> None:
        await setup.user("a")
        setup.advance(3599)
        setup.provider.body = key_set(jwk("rsa_other", "b"))
        assert at_once(setup.verifier.verify_connection(signed("a"))).user == "42"
        assert setup.provider.fetches == 1
        setup.advance(1)
        assert await setup.error("a") == "kid 'a' is not in the key set of jwks_url"
        assert setup.provider.fetches == 2
        assert await setup.user("b", "rsa_other") == "42"
        assert setup.provider.fetches == 2

    run(Setup(Provider()), scenario)


def test_a_new_kid_causes_a_fetch() -> None:
    """After a rotation the first token of the new key causes a fetch, and is accepted."""

    async def scenario(setup: Setup) -> None:
        await setup.user("a")
        setup.provider.body = key_set(jwk("rsa", "a"), jwk("P-256", "b"))
        setup.advance(FETCH_INTERVAL_MIN_S)
        assert await setup.user("b", "P-256", "ES256") == "42"
        assert setup.events.events == [TokenKeysFetched(1, ""), TokenKeysFetched(2, "")]

    run(Setup(Provider()), scenario)


def test_a_kid_is_unknown_only_after_a_later_fetch() -> None:
    """A fetch from before the token arrived proves nothing: the next fetch, an interval later, may return the key."""

    async def scenario(setup: Setup) -> None:
        await setup.user("a")
        setup.advance(FETCH_INTERVAL_MIN_S - 0.25)
        unknown = asyncio.ensure_future(setup.error("x"))
        rotated = asyncio.ensure_future(setup.user("b", "P-256", "ES256"))
        await setup.wait_for_timer()
        assert setup.provider.fetches == 1
        setup.provider.body = key_set(jwk("rsa", "a"), jwk("P-256", "b"))
        setup.advance(0.25)
        assert await rotated == "42"
        assert await unknown == "kid 'x' is not in the key set of jwks_url"
        assert setup.provider.fetches == 2
        setup.advance(FETCH_INTERVAL_MIN_S)
        await setup.error("x")
        assert setup.provider.fetches == 3

    run(Setup(Provider()), scenario)


def test_a_running_fetch_does_not_prove_a_kid_unknown() -> None:
    """The provider may have answered before the keys rotated: a token that joins a fetch waits for the next, too."""
    slow = SlowProvider()

    async def scenario(setup: Setup) -> None:
        first = asyncio.ensure_future(setup.user("a"))
        await slow.started.wait()
        joined = asyncio.ensure_future(setup.user("b", "P-256", "ES256"))
        await asyncio.sleep(0)
        slow.release.set()
        assert await first == "42"
        await setup.wait_for_timer()
        slow.body = key_set(jwk("P-256", "b"))
        setup.advance(FETCH_INTERVAL_MIN_S)
        assert await joined == "42"
        assert slow.fetches == 2

    run(Setup(slow), scenario)


def test_a_failed_fetch_does_not_prove_a_kid_unknown() -> None:
    """After a failed fetch a new kid is unverifiable, and causes the next fetch when the negative ttl is over."""

    async def scenario(setup: Setup) -> None:
        await setup.user("a")
        setup.advance(FETCH_INTERVAL_MIN_S)
        setup.provider.error = OSError("no route")
        await setup.error("b", TokenUnverifiable)
        setup.provider.error = None
        setup.provider.body = key_set(jwk("rsa", "a"), jwk("P-256", "b"))
        setup.advance(9.75)
        await setup.error("b", TokenUnverifiable)
        assert setup.provider.fetches == 2
        setup.advance(0.25)
        assert await setup.user("b", "P-256", "ES256") == "42"

    run(Setup(Provider()), scenario)


def test_waiting_tokens_with_unknown_kids_are_limited() -> None:
    """Beyond the limit a token is unverifiable immediately, with an event. The waiting tokens share one fetch."""

    async def scenario(setup: Setup) -> None:
        await setup.user("a")
        waiting = [
            asyncio.ensure_future(setup.verifier.verify_connection(invented(f"invented {number}")))
            for number in range(UNKNOWN_KIDS_MAX)
        ]
        await setup.wait_for_timer()
        for _ in range(50):
            with pytest.raises(TokenUnverifiable, match=r"^kid 'b' is unknown, and too many tokens wait for the key"):
                at_once(setup.verifier.verify_connection(invented("b")))
        assert setup.events.events.count(LimitHit("jwks_unknown_kids_max", "")) == 50
        assert at_once(setup.verifier.verify_connection(signed("a"))).user == "42"
        setup.advance(FETCH_INTERVAL_MIN_S)
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(answer) for answer in answers} == {TokenInvalid}
        assert setup.provider.fetches == 2

    run(Setup(Provider()), scenario)


def test_a_cancelled_token_no_longer_counts_as_waiting() -> None:
    """When clients leave while their tokens wait, other tokens may wait."""

    async def scenario(setup: Setup) -> None:
        await setup.user("a")
        waiting = [
            asyncio.ensure_future(setup.verifier.verify_connection(invented(f"invented {number}")))
            for number in range(UNKNOWN_KIDS_MAX)
        ]
        await setup.wait_for_timer()
        for task in waiting:
            task.cancel()
        assert len(await asyncio.gather(*waiting, return_exceptions=True)) == UNKNOWN_KIDS_MAX
        another = asyncio.ensure_future(setup.error("x"))
        await asyncio.sleep(0)
        setup.advance(FETCH_INTERVAL_MIN_S)
        assert await another == "kid 'x' is not in the key set of jwks_url"

    run(Setup(Provider()), scenario)


def test_a_fetch_for_a_stale_set_restarts_the_interval() -> None:
    """Tokens that wait for the interval get the result of this fetch; the next unknown kid waits a whole interval."""
    quarter_s = FETCH_INTERVAL_MIN_S / 4

    async def scenario(setup: Setup) -> None:
        async def begin(verification: Coroutine[Any, Any, str]) -> asyncio.Future[str]:
            task = asyncio.ensure_future(verification)
            await settle()
            setup.advance(0.0)  # ends a fetch that has begun
            return task

        assert await (await begin(setup.user("a"))) == "42"
        setup.advance(quarter_s)
        early = await begin(setup.error("x"))
        setup.advance(quarter_s)
        assert await (await begin(setup.user("a"))) == "42"  # the set was stale
        assert await early == "kid 'x' is not in the key set of jwks_url"
        setup.advance(quarter_s)
        late = await begin(setup.error("y"))
        setup.advance(quarter_s)
        await settle()
        assert setup.provider.fetches == 2
        setup.advance(2 * quarter_s)
        await settle()
        setup.advance(0.0)
        assert await late == "kid 'y' is not in the key set of jwks_url"
        assert setup.provider.fetches == 3

    run(Setup(TimedProvider(0.0), cache_ttl_s=FETCH_INTERVAL_MIN_S / 2), scenario)


@pytest.mark.parametrize("duration_s", [0.0, 0.25, 1.5])
def test_keys_rotate_during_a_flood_of_invented_kids(duration_s: float) -> None:
    """No valid token is called invalid. When the interval and two fetches are over, tokens of the new key are accepted
    without waiting, however many invented kids arrive, and fetches stay an interval apart.
    """
    step_s, steps, rotation, flood = 0.125, 80, 30, 20
    known_by = rotation + 1 + int((FETCH_INTERVAL_MIN_S + 2 * duration_s) / step_s)
    started_s: list[float] = []

    async def scenario(setup: Setup) -> None:
        invalid: list[asyncio.Future[Identity]] = []
        valid: list[asyncio.Future[Identity]] = []
        for step in range(steps):
            if step == rotation:
                setup.provider.body = key_set(jwk("P-256", "b"))
            for number in range(flood):
                token = invented(f"{step} {number}")
                invalid.append(asyncio.ensure_future(setup.verifier.verify_connection(token)))
            token = signed("b", "P-256", "ES256") if step >= rotation else signed("a")
            verification = asyncio.ensure_future(setup.verifier.verify_connection(token))
            valid.append(verification)
            await settle()
            started_s.extend([setup.clock.now_s()] * (setup.provider.fetches - len(started_s)))
            if step >= known_by:
                assert verification.result().user == "42"
            setup.advance(step_s)
        while not all(task.done() for task in (*invalid, *valid)):
            setup.advance(step_s)
            await settle()
        assert {type(task.exception()) for task in invalid} == {TokenInvalid, TokenUnverifiable}
        assert {type(task.exception()) for task in valid} <= {type(None), TokenUnverifiable}

    # The deadline of a fetch is in real time, which a busy machine may need for this many tokens.
    run(Setup(TimedProvider(duration_s), timeout_s=100), scenario)
    intervals_s = [later - earlier for earlier, later in itertools.pairwise(started_s)]
    assert intervals_s
    assert min(intervals_s) >= FETCH_INTERVAL_MIN_S


def test_a_long_kid_is_shortened_in_texts() -> None:
    """The author of the token chose the kid: texts quote and shorten it."""

    async def scenario(setup: Setup) -> None:
        assert await setup.error("\x1b" + "k" * 5000) == f"kid '\\x1b{'k' * 39}…' is not in the key set of jwks_url"

    run(Setup(Provider()), scenario)


# --- outages -----------------------------------------------------------------------------------------------------


def test_known_keys_are_used_during_an_outage() -> None:
    """Old keys are used past their ttl while fetches fail, and the provider is asked once per negative ttl."""

    async def scenario(setup: Setup) -> None:
        await setup.user("a")
        setup.provider.error = OSError("connection refused")
        setup.advance(10 * 3600)
        assert await setup.user("a") == "42"
        assert at_once(setup.verifier.verify_connection(signed("a"))).user == "42"
        assert setup.provider.fetches == 2
        setup.advance(10)
        assert await setup.user("a") == "42"
        assert setup.provider.fetches == 3
        assert setup.events.events[-1] == TokenKeysFetched(1, "OSError: connection refused")
        text = await setup.error("new", TokenUnverifiable)
        assert text == "the keys of jwks_url could not be fetched: OSError: connection refused"
        setup.provider.error = None
        setup.provider.body = key_set(jwk("rsa", "new"))
        setup.advance(10)
        assert await setup.user("new") == "42"
        setup.advance(FETCH_INTERVAL_MIN_S)
        assert await setup.error("a") == "kid 'a' is not in the key set of jwks_url"

    run(Setup(Provider()), scenario)


def test_an_outage_from_the_start_is_unverifiable_not_invalid() -> None:
    """Without any keys a token may be valid: the error is temporary, so that clients try again."""

    async def scenario(setup: Setup) -> None:
        setup.provider.error = OSError("no route")
        for _ in range(5):
            await setup.error("a", TokenUnverifiable)
        assert setup.provider.fetches == 1
        setup.advance(10)
        setup.provider.error = None
        assert await setup.user("a") == "42"

    run(Setup(Provider()), scenario)


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":null}', b'{"keys":' + b"[" * 9999]
)
def test_a_response_that_is_no_key_set_is_a_failed_fetch(body: bytes) -> None:
    """An error page with status 200 does not remove the keys."""

    async def scenario(setup: Setup) -> None:
        await setup.user("a")
        setup.provider.body = body
        setup.advance(3600)
        assert await setup.user("a") == "42"
        event = setup.events.events[-1]
        assert isinstance(event, TokenKeysFetched)
        assert event.error == 'ValueError: the answer is no JSON Web Key Set: expected {"keys": [...]}'

    run(Setup(Provider()), scenario)


def test_an_empty_set_revokes_every_key() -> None:
    """An empty list is a valid response, not a failure: no key is accepted."""

    async def scenario(setup: Setup) -> None:
        await setup.user("a")
        setup.provider.body = key_set()
        setup.advance(3600)
        await setup.error("a")
        assert setup.events.events[-1] == TokenKeysFetched(0, "")

    run(Setup(Provider()), scenario)


def test_a_fetch_that_takes_too_long_is_cancelled() -> None:
    """At `jwks_timeout` the fetch is cancelled and its waiters are released; the negative ttl begins."""
    slow = SlowProvider()

    async def scenario(setup: Setup) -> None:
        text = await setup.error("a", TokenUnverifiable)
        assert text == "the keys of jwks_url could not be fetched: no answer within 0.01 s"
        assert slow.cancelled == 1
        assert setup.events.events == [TokenKeysFetched(0, "no answer within 0.01 s")]
        slow.release.set()
        setup.advance(9.75)
        with pytest.raises(TokenUnverifiable):
            at_once(setup.verifier.verify_connection(signed("a")))
        assert slow.fetches == 1
        setup.advance(0.25)
        assert await setup.user("a") == "42"
        assert slow.fetches == 2

    run(Setup(slow, timeout_s=0.01), scenario)


# --- one fetch at a time -----------------------------------------------------------------------------------------


def test_all_tokens_wait_for_the_same_fetch() -> None:
    """Many tokens at the same time cause one fetch; a cancelled waiter does not cancel the fetch."""
    slow = SlowProvider()

    async def scenario(setup: Setup) -> None:
        tasks = [asyncio.ensure_future(setup.user("a")) for _ in range(20)]
        await slow.started.wait()
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        slow.release.set()
        assert await asyncio.gather(*tasks[1:]) == ["42"] * 19
        assert slow.fetches == 1

    run(Setup(slow, timeout_s=30), scenario)


def test_known_keys_do_not_wait_for_a_running_fetch() -> None:
    """While a token with an unknown kid waits, tokens of known keys are verified immediately."""
    slow = SlowProvider()

    async def scenario(setup: Setup) -> None:
        slow.release.set()
        await setup.user("a")
        slow.release.clear()
        slow.started.clear()
        setup.advance(FETCH_INTERVAL_MIN_S)
        unknown = asyncio.ensure_future(setup.error("x"))
        await slow.started.wait()
        assert at_once(setup.verifier.verify_connection(signed("a"))).user == "42"
        slow.release.set()
        assert await unknown == "kid 'x' is not in the key set of jwks_url"

    run(Setup(slow, timeout_s=30), scenario)


def test_a_verification_may_begin_outside_a_task() -> None:
    """`run_eagerly` runs a command outside of any task until the command suspends."""
    slow = SlowProvider()

    async def scenario(setup: Setup) -> None:
        found: list[Identity] = []

        async def verify() -> None:
            found.append(await setup.verifier.verify_connection(signed("a")))

        tasks: list[asyncio.Task[None] | None] = []
        asyncio.get_running_loop().call_soon(lambda: tasks.append(run_eagerly(verify())))
        await slow.started.wait()
        slow.release.set()
        assert tasks[0] is not None
        await tasks[0]
        assert found == [Identity(user="42")]

    run(Setup(slow, timeout_s=30), scenario)


def test_events_of_fetches() -> None:
    """The event of a failed fetch has the number of the keys still in use, that of a successful one of the new keys."""
    seen: list[Event] = []

    async def scenario(setup: Setup) -> None:
        setup.events.on_event = seen.append
        await setup.user("a")
        setup.provider.error = ValueError("bad response")
        setup.advance(3600)
        await setup.user("a")

    run(Setup(Provider()), scenario)
    assert seen == [TokenKeysFetched(1, ""), TokenKeysFetched(1, "ValueError: bad response")]


# --- the end -----------------------------------------------------------------------------------------------------


def test_close_cancels_the_fetch_and_releases_the_waiters() -> None:
    """Waiting tokens become unverifiable, the source is closed, and no event reports a failure of the provider."""
    slow = SlowProvider()

    async def scenario(setup: Setup) -> None:
        waiting = asyncio.ensure_future(setup.error("a", TokenUnverifiable))
        await slow.started.wait()
        await setup.verifier.close()
        assert await waiting == "the keys of jwks_url could not be fetched: the server is shutting down"
        assert slow.cancelled == 1
        assert slow.closed == 1
        assert setup.events.events == []
        with pytest.raises(TokenUnverifiable):
            at_once(setup.verifier.verify_connection(signed("a")))
        assert slow.fetches == 1

    run(Setup(slow), scenario)


def test_close_cancels_the_timer_of_the_next_fetch() -> None:
    """A token that waits for the interval is released by `close`, and no fetch begins afterwards."""

    async def scenario(setup: Setup) -> None:
        await setup.user("a")
        waiting = asyncio.ensure_future(setup.error("x", TokenUnverifiable))
        await setup.wait_for_timer()
        await setup.verifier.close()
        await waiting
        setup.advance(FETCH_INTERVAL_MIN_S)
        await settle()
        assert setup.provider.fetches == 1

    run(Setup(Provider()), scenario)


def test_close_without_a_key_set_does_nothing() -> None:
    """Verifiers with static keys only may be closed, too."""
    verifier = JWTVerifier(TokenOptions(hmac_secret=SECRET), ManualClock(), RecordedEvents())
    at_once(verifier.close())
    assert at_once(verifier.verify_connection(token_of(sub="42"))).user == "42"


def test_cancelling_the_fetch_from_outside_is_a_failed_fetch() -> None:
    """When an application cancels all tasks, the waiters learn why, and no new fetch begins at once."""
    slow = SlowProvider()

    async def scenario(setup: Setup) -> None:
        waiting = asyncio.ensure_future(setup.error("a", TokenUnverifiable))
        await slow.started.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task(), waiting}:
            task.cancel()
        assert await waiting == "the keys of jwks_url could not be fetched: cancelled"
        assert slow.fetches == 1

    run(Setup(slow), scenario)
