"""Key sets: the age of a set, outages of the provider, concurrent tokens, and the end of a fetch."""

from __future__ import annotations

import asyncio

import pytest

from beaconfire.auth.jwks import FETCH_INTERVAL_MIN_S
from beaconfire.auth.options import TokenOptions
from beaconfire.auth.tokens import JWTVerifier
from beaconfire.base.clock import ManualClock
from beaconfire.base.tasks import start_task
from beaconfire.model.events import Event, TokenKeysFetched
from beaconfire.model.identity import Identity
from beaconfire.policy.tokens import TokenUnverifiable

from .jwks_setup import Provider, Setup, SlowProvider, run, settle, signed
from .samples import SECRET, RecordedEvents, at_once, jwk, key_set, token_of


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


def test_verifications_suspend_only_with_a_key_set() -> None:
    """So commands with tokens run in one step if all keys are in the settings. With a key set they run in tasks, even
    while all keys are known: a fetch may become necessary with any token."""
    without = JWTVerifier(TokenOptions(hmac_secret=SECRET), ManualClock(), RecordedEvents())
    assert not without.suspends
    assert at_once(without.verify_connection(token_of(sub="42"))).user == "42"
    slow = SlowProvider()

    async def scenario(setup: Setup) -> None:
        assert setup.verifier.suspends
        verifying = start_task(setup.verifier.verify_connection(signed("a")))
        await slow.started.wait()
        assert not verifying.done()
        slow.release.set()
        assert await verifying == Identity(user="42", issued_at_unix_s=0)
        assert setup.verifier.suspends

    run(Setup(slow, timeout_s=30), scenario)


# --- closing and cancelling --------------------------------------------------------------------------------------


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
