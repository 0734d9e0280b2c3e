"""Key sets: tokens with unknown kids, the rotation of keys, and the interval between two fetches."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

import pytest

from beaconfire.auth.jwks import FETCH_INTERVAL_MIN_S, UNKNOWN_KIDS_MAX
from beaconfire.model.events import LimitHit, TokenKeysFetched
from beaconfire.model.identity import Identity
from beaconfire.policy.tokens import TokenInvalid, TokenUnverifiable

from .jwks_setup import Provider, Setup, SlowProvider, TimedProvider, invented, run, settle, signed
from .samples import at_once, jwk, key_set


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
