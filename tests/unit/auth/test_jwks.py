"""Key sets: caching, rotation, outages, and what is taken from a set. No network: the fetch is given."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from beaconfire.auth.algorithms import EDDSA, RSA
from beaconfire.auth.issue import sign_claims
from beaconfire.auth.jwks import FETCH_PAUSE_S, UNKNOWN_KIDS_MAX, KeySet, read_keys
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
    """An identity provider: answers with `body`, or fails with `error`, and counts how often it was asked."""

    def __init__(self, body: bytes = b"") -> None:
        self.body = body or key_set(jwk("rsa", "a"))
        self.error: Exception | None = None
        self.asked: list[tuple[str, float]] = []

    def fetch(self, url: str, timeout_s: float) -> bytes:
        self.asked.append((url, timeout_s))
        if self.error is not None:
            raise self.error
        return self.body


class SlowProvider(Provider):
    """Its answers wait for `release`; `started` is set as soon as it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.started = threading.Event()
        self.release = threading.Event()

    def fetch(self, url: str, timeout_s: float) -> bytes:
        body = super().fetch(url, timeout_s)
        self.started.set()
        if not self.release.wait(20):
            raise AssertionError("nobody released the fetch")
        return body

    async def wait_started(self) -> None:
        assert await asyncio.get_running_loop().run_in_executor(None, self.started.wait, 20)


@pytest.fixture
def slow() -> Iterator[SlowProvider]:
    provider = SlowProvider()
    yield provider
    provider.release.set()


class Bench:
    """A verifier of a key set with everything around it."""

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
        self.verifier = JWTVerifier(options, self.clock, self.events, fetch=provider.fetch, later=self.timers.after)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.timers.run_due()

    async def wait_pausing(self) -> None:
        """Until somebody waits for the end of the pause between two fetches."""
        async with asyncio.timeout(20):
            while not len(self.timers):  # noqa: ASYNC110 - timers tell nobody that they were set
                await asyncio.sleep(0)

    async def user(self, kid: str, key: str = "rsa", algorithm: str = "RS256") -> str:
        return (await self.verifier.verify_connection(signed(kid, key, algorithm))).user

    async def refused(self, kid: str, kind: type[Exception] = TokenInvalid) -> str:
        with pytest.raises(kind) as caught:
            await self.user(kid)
        assert type(caught.value) is kind
        return str(caught.value)


def signed(kid: str, key: str = "rsa", algorithm: str = "RS256") -> str:
    return sign_claims(private_pem(key), {"sub": "42"}, algorithm=algorithm, kid=kid)


def invented(kid: str) -> str:
    """A token of nobody, which costs less to make than it costs to refuse."""
    return forged({"alg": "EdDSA", "kid": kid}, {}, lambda _: b"no signature")


def run(bench: Bench, scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario(bench)

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

    async def scenario(bench: Bench) -> None:
        assert await bench.user("k", key, algorithm) == "42"
        assert bench.provider.asked == [(URL, 3.0)]
        assert bench.events.events == [TokenKeysFetched(1, "")]

    run(Bench(Provider(key_set(jwk(key, "k")))), scenario)


def test_tokens_without_kid_and_hmac_tokens_use_the_static_keys() -> None:
    """The key set serves tokens with a kid; the others never touch it, and HS* never does, whatever its kid."""
    bench = Bench(Provider(key_set(jwk("rsa", "a"), {"kty": "oct", "kid": "o", "k": "c2VjcmV0"})))
    for token in (
        token_of(sub="42"),
        sign_claims(SECRET, {"sub": "42"}, kid="a"),
        sign_claims(SECRET, {"sub": "42"}, kid="o"),
        sign_claims(private_pem("rsa_other"), {"sub": "42"}, algorithm="RS256"),
    ):
        assert at_once(bench.verifier.verify_connection(token)).user == "42"
    for secret in (b"secret", public_pem("rsa").encode()):
        with pytest.raises(TokenInvalid, match=r"^signature does not match token\.hmac_secret$"):
            at_once(bench.verifier.verify_connection(forged({"alg": "HS256", "kid": "o"}, {}, hs256(secret))))
    with pytest.raises(TokenInvalid, match=r"^alg ES256 without a kid needs token\.ecdsa_public_key"):
        at_once(bench.verifier.verify_connection(forged({"alg": "ES256"}, {}, lambda _: b"")))
    assert bench.provider.asked == []


def test_a_static_key_does_not_stand_in_for_a_kid() -> None:
    """A token with a kid is verified by that key of the set or not at all."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(TokenInvalid, match=r"^signature does not match the key 'a' of jwks_url$"):
            await bench.user("a", "rsa_other")
        bench.advance(FETCH_PAUSE_S)
        with pytest.raises(TokenInvalid, match=r"^kid 'b' is not in the key set of jwks_url$"):
            await bench.user("b", "rsa_other")

    run(Bench(Provider()), scenario)


def test_the_algorithm_of_a_key_is_binding() -> None:
    """A key with an `alg` verifies that one only, and one without verifies what fits its type."""

    async def scenario(bench: Bench) -> None:
        assert await bench.user("a", algorithm="RS512") == "42"
        for key, algorithm in (("rsa", "RS256"), ("P-256", "ES256"), ("ed25519", "EdDSA")):
            with pytest.raises(TokenInvalid, match=rf"^alg {algorithm} does not fit the key 'a' of jwks_url$"):
                await bench.user("a", key, algorithm)
        assert len(bench.provider.asked) == 1

    run(Bench(Provider(key_set(jwk("rsa", "a", alg="RS512")))), scenario)


def test_unsigned_and_unknown_algorithms_cause_no_fetch() -> None:
    """`none` and what we do not know is refused before the provider is asked."""
    bench = Bench(Provider())
    for alg in ("none", "PS256", "HS257"):
        with pytest.raises(TokenInvalid):
            at_once(bench.verifier.verify_connection(forged({"alg": alg, "kid": "a"}, {}, lambda _: b"")))
    assert bench.provider.asked == []


# --- caching and rotation ----------------------------------------------------------------------------------------


def test_the_set_is_fetched_once_per_ttl() -> None:
    """A fresh set is used unasked; at its ttl the next token waits for a new one, and removed keys are gone."""

    async def scenario(bench: Bench) -> None:
        await bench.user("a")
        bench.advance(3599)
        bench.provider.body = key_set(jwk("rsa_other", "b"))
        assert at_once(bench.verifier.verify_connection(signed("a"))).user == "42"
        assert len(bench.provider.asked) == 1
        bench.advance(1)
        assert await bench.refused("a") == "kid 'a' is not in the key set of jwks_url"
        assert len(bench.provider.asked) == 2
        assert await bench.user("b", "rsa_other") == "42"
        assert len(bench.provider.asked) == 2

    run(Bench(Provider()), scenario)


def test_a_new_kid_is_asked_for_at_once() -> None:
    """After a rotation the first token of the new key makes the set be fetched, and is accepted."""

    async def scenario(bench: Bench) -> None:
        await bench.user("a")
        bench.provider.body = key_set(jwk("rsa", "a"), jwk("P-256", "b"))
        bench.advance(FETCH_PAUSE_S)
        assert await bench.user("b", "P-256", "ES256") == "42"
        assert bench.events.events == [TokenKeysFetched(1, ""), TokenKeysFetched(2, "")]

    run(Bench(Provider()), scenario)


def test_a_kid_is_unknown_only_after_a_fetch_of_its_own() -> None:
    """A fetch from before the token came proves nothing: the next one does, a pause later, and may bring the key."""

    async def scenario(bench: Bench) -> None:
        await bench.user("a")
        bench.advance(FETCH_PAUSE_S - 0.25)
        early = asyncio.ensure_future(bench.refused("x"))
        late = asyncio.ensure_future(bench.user("b", "P-256", "ES256"))
        await bench.wait_pausing()
        assert len(bench.provider.asked) == 1
        bench.provider.body = key_set(jwk("rsa", "a"), jwk("P-256", "b"))
        bench.advance(0.25)
        assert await late == "42"
        assert await early == "kid 'x' is not in the key set of jwks_url"
        assert len(bench.provider.asked) == 2
        bench.advance(FETCH_PAUSE_S)
        await bench.refused("x")
        assert len(bench.provider.asked) == 3

    run(Bench(Provider()), scenario)


def test_a_fetch_in_flight_does_not_prove_a_kid_unknown(slow: SlowProvider) -> None:
    """The provider may have answered it before the keys rotated: a token that joins it waits for the one after it."""

    async def scenario(bench: Bench) -> None:
        first = asyncio.ensure_future(bench.user("a"))
        await slow.wait_started()
        joined = asyncio.ensure_future(bench.user("b", "P-256", "ES256"))
        await asyncio.sleep(0)
        slow.release.set()
        assert await first == "42"
        await bench.wait_pausing()
        slow.body = key_set(jwk("P-256", "b"))
        bench.advance(FETCH_PAUSE_S)
        assert await joined == "42"
        assert len(slow.asked) == 2

    run(Bench(slow), scenario)


def test_an_unknown_kid_is_asked_for_again_after_a_failure() -> None:
    """A failed fetch for a new kid is no verdict, and when its time is over the next token asks again."""

    async def scenario(bench: Bench) -> None:
        await bench.user("a")
        bench.advance(FETCH_PAUSE_S)
        bench.provider.error = OSError("no route")
        await bench.refused("b", TokenUnverifiable)
        bench.provider.error = None
        bench.provider.body = key_set(jwk("rsa", "a"), jwk("P-256", "b"))
        bench.advance(9.75)
        await bench.refused("b", TokenUnverifiable)
        assert len(bench.provider.asked) == 2
        bench.advance(0.25)
        assert await bench.user("b", "P-256", "ES256") == "42"

    run(Bench(Provider()), scenario)


def test_so_many_unknown_kids_wait_and_no_more() -> None:
    """Beyond the limit a token is unverifiable at once, which is an event; those who wait share one fetch."""

    async def scenario(bench: Bench) -> None:
        await bench.user("a")
        waiting = [
            asyncio.ensure_future(bench.verifier.verify_connection(invented(f"invented {number}")))
            for number in range(UNKNOWN_KIDS_MAX)
        ]
        await bench.wait_pausing()
        for _ in range(50):
            with pytest.raises(TokenUnverifiable, match=r"^kid 'b' is unknown, and too many wait for the key set"):
                at_once(bench.verifier.verify_connection(invented("b")))
        assert bench.events.events.count(LimitHit("jwks_unknown_kids_max", "")) == 50
        assert at_once(bench.verifier.verify_connection(signed("a"))).user == "42"
        bench.advance(FETCH_PAUSE_S)
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(answer) for answer in answers} == {TokenInvalid}
        assert len(bench.provider.asked) == 2

    run(Bench(Provider()), scenario)


def test_who_gives_up_waiting_makes_room() -> None:
    """A client that goes away while its token waits does not count any longer."""

    async def scenario(bench: Bench) -> None:
        await bench.user("a")
        waiting = [
            asyncio.ensure_future(bench.verifier.verify_connection(invented(f"invented {number}")))
            for number in range(UNKNOWN_KIDS_MAX)
        ]
        await bench.wait_pausing()
        for task in waiting:
            task.cancel()
        assert len(await asyncio.gather(*waiting, return_exceptions=True)) == UNKNOWN_KIDS_MAX
        another = asyncio.ensure_future(bench.refused("x"))
        await asyncio.sleep(0)
        bench.advance(FETCH_PAUSE_S)
        assert await another == "kid 'x' is not in the key set of jwks_url"

    run(Bench(Provider()), scenario)


class VirtualThreads(ThreadPoolExecutor):
    """Runs what it is given at once, and hands over the outcome so much later by a virtual clock."""

    def __init__(self, timers: Timers, duration_s: float) -> None:
        super().__init__(1)
        self._timers = timers
        self._duration_s = duration_s

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        outcome = fn(*args, **kwargs)
        self._timers.after(self._duration_s, lambda: future.set_result(outcome))
        return future


def test_a_fetch_for_another_reason_begins_a_new_pause() -> None:
    """It serves those who wait for the end of the pause, and the next unknown kid waits for a whole one."""
    quarter_s = FETCH_PAUSE_S / 4

    async def scenario(bench: Bench) -> None:
        asyncio.get_running_loop().set_default_executor(VirtualThreads(bench.timers, 0.0))

        async def begin(answer: Coroutine[Any, Any, str]) -> asyncio.Future[str]:
            task = asyncio.ensure_future(answer)
            await asyncio.sleep(0)
            bench.advance(0.0)  # a fetch that has begun is over
            return task

        assert await (await begin(bench.user("a"))) == "42"
        bench.advance(quarter_s)
        early = await begin(bench.refused("x"))
        bench.advance(quarter_s)
        assert await (await begin(bench.user("a"))) == "42"  # the set was stale
        assert await early == "kid 'x' is not in the key set of jwks_url"
        bench.advance(quarter_s)
        late = await begin(bench.refused("y"))
        bench.advance(quarter_s)
        assert len(bench.provider.asked) == 2
        bench.advance(2 * quarter_s)
        bench.advance(0.0)
        assert await late == "kid 'y' is not in the key set of jwks_url"
        assert len(bench.provider.asked) == 3

    run(Bench(Provider(), cache_ttl_s=FETCH_PAUSE_S / 2), scenario)


@pytest.mark.parametrize("duration_s", [0.0, 0.25, 1.5])
def test_keys_rotate_during_a_flood_of_invented_kids(duration_s: float) -> None:
    """No honest token is ever called invalid. Those of the new key are accepted without any wait as soon as the pause
    and two fetches are over, whatever the flood does, and fetches stay a pause apart.
    """
    step_s, steps, rotation, flood = 0.125, 80, 30, 20
    known_by = rotation + 1 + int((FETCH_PAUSE_S + 2 * duration_s) / step_s)
    begun_s: list[float] = []

    async def scenario(bench: Bench) -> None:
        asyncio.get_running_loop().set_default_executor(VirtualThreads(bench.timers, duration_s))
        others: list[asyncio.Future[Identity]] = []
        honest: list[asyncio.Future[Identity]] = []
        for step in range(steps):
            if step == rotation:
                bench.provider.body = key_set(jwk("P-256", "b"))
            for number in range(flood):
                token = invented(f"{step} {number}")
                others.append(asyncio.ensure_future(bench.verifier.verify_connection(token)))
            token = signed("b", "P-256", "ES256") if step >= rotation else signed("a")
            verified = asyncio.ensure_future(bench.verifier.verify_connection(token))
            honest.append(verified)
            for _ in range(5):  # everything that runs without time passing
                await asyncio.sleep(0)
            asked = len(bench.provider.asked) - len(begun_s)
            begun_s.extend([bench.clock.now_s()] * asked)
            if step >= known_by:
                assert verified.result().user == "42"
            bench.advance(step_s)
        while not all(task.done() for task in (*others, *honest)):
            bench.advance(step_s)
            await asyncio.sleep(0)
        refusals = {type(task.exception()) for task in others}
        assert refusals == {TokenInvalid, TokenUnverifiable}
        assert {type(task.exception()) for task in honest} <= {type(None), TokenUnverifiable}

    run(Bench(Provider()), scenario)
    apart_s = [later - earlier for earlier, later in itertools.pairwise(begun_s)]
    assert apart_s
    assert min(apart_s) >= FETCH_PAUSE_S


def test_a_long_kid_is_cut_in_texts() -> None:
    """Whoever made the token chose its kid: it is quoted and cut where it is shown."""

    async def scenario(bench: Bench) -> None:
        assert await bench.refused("\x1b" + "k" * 5000) == f"kid '\\x1b{'k' * 39}…' is not in the key set of jwks_url"

    run(Bench(Provider()), scenario)


# --- outages -----------------------------------------------------------------------------------------------------


def test_an_outage_takes_nobody_down() -> None:
    """Old keys serve past their ttl while fetches fail, and the provider is asked once per negative ttl."""

    async def scenario(bench: Bench) -> None:
        await bench.user("a")
        bench.provider.error = OSError("connection refused")
        bench.advance(10 * 3600)
        assert await bench.user("a") == "42"
        assert at_once(bench.verifier.verify_connection(signed("a"))).user == "42"
        assert len(bench.provider.asked) == 2
        bench.advance(10)
        assert await bench.user("a") == "42"
        assert len(bench.provider.asked) == 3
        assert bench.events.events[-1] == TokenKeysFetched(1, "OSError: connection refused")
        text = await bench.refused("new", TokenUnverifiable)
        assert text == "the keys of jwks_url could not be fetched: OSError: connection refused"
        bench.provider.error = None
        bench.provider.body = key_set(jwk("rsa", "new"))
        bench.advance(10)
        assert await bench.user("new") == "42"
        bench.advance(FETCH_PAUSE_S)
        assert await bench.refused("a") == "kid 'a' is not in the key set of jwks_url"

    run(Bench(Provider()), scenario)


def test_an_outage_from_the_start_is_unverifiable_not_invalid() -> None:
    """Without any keys a token may be good: clients are told to try again, not to go away."""

    async def scenario(bench: Bench) -> None:
        bench.provider.error = OSError("no route")
        for _ in range(5):
            await bench.refused("a", TokenUnverifiable)
        assert len(bench.provider.asked) == 1
        bench.advance(10)
        bench.provider.error = None
        assert await bench.user("a") == "42"

    run(Bench(Provider()), scenario)


@pytest.mark.parametrize(
    "body", [b"<html>", b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":null}', b'{"keys":' + b"[" * 9999]
)
def test_an_answer_that_is_no_key_set_is_a_failure(body: bytes) -> None:
    """An error page with status 200 does not throw the keys away."""

    async def scenario(bench: Bench) -> None:
        await bench.user("a")
        bench.provider.body = body
        bench.advance(3600)
        assert await bench.user("a") == "42"
        event = bench.events.events[-1]
        assert isinstance(event, TokenKeysFetched)
        assert event.error == 'ValueError: the answer is no JSON Web Key Set: expected {"keys": [...]}'

    run(Bench(Provider()), scenario)


def test_an_empty_set_revokes_every_key() -> None:
    """An empty list is an answer, not a failure: no key is valid."""

    async def scenario(bench: Bench) -> None:
        await bench.user("a")
        bench.provider.body = key_set()
        bench.advance(3600)
        await bench.refused("a")
        assert bench.events.events[-1] == TokenKeysFetched(0, "")

    run(Bench(Provider()), scenario)


@pytest.mark.parametrize("later_s", [0, 60])
def test_a_missed_deadline_frees_the_waiters(slow: SlowProvider, later_s: float) -> None:
    """A fetch that hangs fails its waiters in time, is not joined or repeated, and counts if it comes after all."""

    async def scenario(bench: Bench) -> None:
        arrived = asyncio.Event()
        bench.events.on_event = lambda event: arrived.set() if event == TokenKeysFetched(1, "") else None
        text = await bench.refused("a", TokenUnverifiable)
        assert text == "the keys of jwks_url could not be fetched: no answer within 0.01 s"
        bench.advance(later_s)
        with pytest.raises(TokenUnverifiable):
            at_once(bench.verifier.verify_connection(signed("a")))
        slow.release.set()
        async with asyncio.timeout(20):
            await arrived.wait()
        assert at_once(bench.verifier.verify_connection(signed("a"))).user == "42"
        assert len(slow.asked) == 1

    run(Bench(slow, timeout_s=0.01), scenario)


def test_after_a_late_success_new_kids_are_asked_for_again() -> None:
    """Keys that came after the deadline end the pause that a failure brings."""
    provider, events, clock = SlowProvider(), RecordedEvents(), ManualClock()
    keys = KeySet(TokenOptions(jwks_url=URL, jwks_timeout=Seconds(0.01)), clock, events, provider.fetch)

    async def scenario() -> None:
        arrived = asyncio.Event()
        events.on_event = lambda event: arrived.set() if event == TokenKeysFetched(1, "") else None
        with pytest.raises(TokenUnverifiable):
            await keys.find("a", "RS256")
        provider.release.set()
        async with asyncio.timeout(20):
            await arrived.wait()
        clock.advance(FETCH_PAUSE_S)
        with pytest.raises((TokenInvalid, TokenUnverifiable)):
            await keys.find("new", "RS256")
        assert len(provider.asked) == 2

    asyncio.run(scenario())


def test_a_fetch_in_time_stops_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline of a finished fetch must not strike later and call the next one overdue."""

    async def scenario(bench: Bench) -> None:
        loop = asyncio.get_running_loop()
        deadlines: list[asyncio.TimerHandle] = []

        def call_later(delay_s: float, callback: Callable[..., object], *arguments: object) -> asyncio.TimerHandle:
            deadlines.append(loop.call_at(loop.time() + delay_s, callback, *arguments))
            return deadlines[-1]

        monkeypatch.setattr(loop, "call_later", call_later)
        await bench.user("a")
        assert [deadline.cancelled() for deadline in deadlines] == [True]

    run(Bench(Provider()), scenario)


# --- one fetch in flight -----------------------------------------------------------------------------------------


def test_everybody_waits_for_the_same_fetch(slow: SlowProvider) -> None:
    """Many tokens at once cause one fetch, and one waiter that is cancelled does not take the others with it."""

    async def scenario(bench: Bench) -> None:
        tasks = [asyncio.ensure_future(bench.user("a")) for _ in range(20)]
        await slow.wait_started()
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        slow.release.set()
        assert await asyncio.gather(*tasks[1:]) == ["42"] * 19
        assert len(slow.asked) == 1

    run(Bench(slow, timeout_s=30), scenario)


def test_known_keys_do_not_wait_for_a_fetch_in_flight(slow: SlowProvider) -> None:
    """While somebody asks for an unknown kid, tokens of known keys are verified at once."""

    async def scenario(bench: Bench) -> None:
        slow.release.set()
        await bench.user("a")
        slow.release.clear()
        slow.started.clear()
        bench.advance(FETCH_PAUSE_S)
        unknown = asyncio.ensure_future(bench.refused("x"))
        await slow.wait_started()
        assert at_once(bench.verifier.verify_connection(signed("a"))).user == "42"
        slow.release.set()
        assert await unknown == "kid 'x' is not in the key set of jwks_url"

    run(Bench(slow, timeout_s=30), scenario)


def test_verifying_can_begin_without_a_task(slow: SlowProvider) -> None:
    """A command is stepped outside of any task until it suspends; the verifier must bear that."""

    async def scenario(bench: Bench) -> None:
        found: list[Identity] = []

        async def verify() -> None:
            found.append(await bench.verifier.verify_connection(signed("a")))

        tasks: list[asyncio.Task[None] | None] = []
        asyncio.get_running_loop().call_soon(lambda: tasks.append(run_eagerly(verify())))
        await slow.wait_started()
        slow.release.set()
        assert tasks[0] is not None
        await tasks[0]
        assert found == [Identity(user="42")]

    run(Bench(slow, timeout_s=30), scenario)


# --- reading a set -----------------------------------------------------------------------------------------------

BAD_KEYS: dict[str, object] = {
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


@pytest.mark.parametrize("name", BAD_KEYS)
def test_one_bad_key_does_not_spoil_the_set(name: str) -> None:
    """A key that is not for us is skipped; those before and after it are taken."""
    keys = read_keys(key_set(jwk("rsa", "first"), BAD_KEYS[name], jwk("ed25519", "last")))
    assert {kid: key[0].algorithms for kid, key in keys.items()} == {"first": RSA, "last": EDDSA}


def test_members_that_say_what_we_need_are_fine() -> None:
    """`use`, `key_ops` and `alg` may be there, null or not, with unknown members beside them."""
    body = key_set(
        jwk("rsa", "a", use="sig", key_ops=["verify"], alg="RS256", x5c=["…"], x5t="…"),
        jwk("P-521", "b", use=None, alg=None, key_ops=None),
    )
    assert {kid: key[0].algorithms for kid, key in read_keys(body).items()} == {"a": ("RS256",), "b": ("ES512",)}


def test_keys_of_different_types_may_share_a_kid() -> None:
    """RFC 7517 section 4.5: the token's algorithm picks between them."""

    async def scenario(bench: Bench) -> None:
        assert await bench.user("a") == "42"
        assert await bench.user("a", "P-256", "ES256") == "42"

    run(Bench(Provider(key_set(jwk("rsa", "a"), jwk("P-256", "a")))), scenario)


def test_private_members_are_not_kept() -> None:
    """A provider that publishes its private key by mistake has its public half used."""
    keys = read_keys(key_set(jwk("rsa", "a", d="AAAA", p="AAAA", q="AAAA")))
    assert not hasattr(keys["a"][0].key, "sign")


def test_every_event_is_about_the_fetch(slow: SlowProvider) -> None:
    """Failures are told with what the set still holds, successes with what it holds now."""
    seen: list[Event] = []

    async def scenario(bench: Bench) -> None:
        bench.events.on_event = seen.append
        slow.release.set()
        await bench.user("a")
        bench.provider.error = ValueError("bad answer")
        bench.advance(3600)
        await bench.user("a")

    run(Bench(slow, timeout_s=30), scenario)
    assert seen == [TokenKeysFetched(1, ""), TokenKeysFetched(1, "ValueError: bad answer")]
