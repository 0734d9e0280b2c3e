"""Key sets: caching, rotation, outages, and what is taken from a set. No network: the fetch is given."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from beaconfire.auth.algorithms import EDDSA, RSA
from beaconfire.auth.jwks import UNKNOWN_KIDS_MAX, KeySet, read_keys
from beaconfire.auth.mint import sign_claims
from beaconfire.auth.options import TokenOptions
from beaconfire.auth.tokens import JWTVerifier
from beaconfire.clock import ManualClock
from beaconfire.eager import run_eagerly
from beaconfire.events import Event, LimitHit, TokenKeysFetched
from beaconfire.identity import Identity, TokenInvalid, TokenUnverifiable
from beaconfire.units import Seconds

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

    def __init__(self, provider: Provider, timeout_s: float = 3) -> None:
        self.clock = ManualClock()
        self.events = RecordedEvents()
        self.provider = provider
        options = TokenOptions(
            jwks_url=URL, jwks_timeout=Seconds(timeout_s), hmac_secret=SECRET, rsa_public_key=public_pem("rsa_other")
        )
        self.verifier = JWTVerifier(options, self.clock, self.events, fetch=provider.fetch)

    async def user(self, kid: str, key: str = "rsa", algorithm: str = "RS256") -> str:
        return (await self.verifier.verify_connection(signed(kid, key, algorithm))).user

    async def refused(self, kid: str, kind: type[Exception] = TokenInvalid) -> str:
        with pytest.raises(kind) as caught:
            await self.user(kid)
        assert type(caught.value) is kind
        return str(caught.value)


def signed(kid: str, key: str = "rsa", algorithm: str = "RS256") -> str:
    return sign_claims(private_pem(key), {"sub": "42"}, algorithm=algorithm, kid=kid)


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
        bench.clock.advance(3599)
        bench.provider.body = key_set(jwk("rsa_other", "b"))
        assert at_once(bench.verifier.verify_connection(signed("a"))).user == "42"
        assert len(bench.provider.asked) == 1
        bench.clock.advance(1)
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
        assert await bench.user("b", "P-256", "ES256") == "42"
        assert bench.events.events == [TokenKeysFetched(1, ""), TokenKeysFetched(2, "")]

    run(Bench(Provider()), scenario)


def test_an_unknown_kid_is_remembered() -> None:
    """The same unknown kid asks once per negative ttl; a fetch for another reason makes it known all the same."""

    async def scenario(bench: Bench) -> None:
        await bench.refused("x")
        assert len(bench.provider.asked) == 1
        await bench.refused("x")
        bench.clock.advance(9.9)
        await bench.refused("x")
        assert len(bench.provider.asked) == 1
        bench.clock.advance(0.1)
        await bench.refused("x")
        assert len(bench.provider.asked) == 2
        bench.provider.body = key_set(jwk("rsa", "x"))
        await bench.refused("x")
        await bench.refused("y")
        assert len(bench.provider.asked) == 3
        assert await bench.user("x") == "42"

    run(Bench(Provider()), scenario)


def test_invented_kids_do_not_flood_the_provider() -> None:
    """Memory and fetches are bounded in each negative ttl, known keys go on working, and the limit is an event."""
    provider, clock, events = Provider(), ManualClock(), RecordedEvents()
    keys = KeySet(TokenOptions(jwks_url=URL), clock, events, provider.fetch)

    async def scenario() -> None:
        for number in range(UNKNOWN_KIDS_MAX + 50):
            with pytest.raises(TokenInvalid, match="is not in the key set"):
                await keys.find(f"invented {number}", "RS256")
        assert keys.unknown_kids == UNKNOWN_KIDS_MAX
        assert len(provider.asked) == UNKNOWN_KIDS_MAX
        assert events.events.count(LimitHit("jwks_unknown_kids_max", "")) == 50
        assert (await keys.find("a", "RS256")).algorithms == RSA
        clock.advance(10)
        with pytest.raises(TokenInvalid):
            await keys.find("invented again", "RS256")
        assert keys.unknown_kids == 1
        assert len(provider.asked) == UNKNOWN_KIDS_MAX + 1

    asyncio.run(scenario())


def test_invented_kids_in_one_fetch_are_bounded_too(slow: SlowProvider) -> None:
    """Any number of them may wait for the same fetch; only so many are remembered."""
    keys = KeySet(TokenOptions(jwks_url=URL), ManualClock(), RecordedEvents(), slow.fetch)

    async def scenario() -> None:
        kids = [f"invented {number}" for number in range(UNKNOWN_KIDS_MAX * 3)]
        finds = asyncio.gather(*(keys.find(kid, "RS256") for kid in kids), return_exceptions=True)
        await slow.wait_started()
        slow.release.set()
        assert {type(answer) for answer in await finds} == {TokenInvalid}
        assert keys.unknown_kids == UNKNOWN_KIDS_MAX
        assert len(slow.asked) == 1

    asyncio.run(scenario())


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
        bench.clock.advance(10 * 3600)
        assert await bench.user("a") == "42"
        assert at_once(bench.verifier.verify_connection(signed("a"))).user == "42"
        assert len(bench.provider.asked) == 2
        bench.clock.advance(10)
        assert await bench.user("a") == "42"
        assert len(bench.provider.asked) == 3
        assert bench.events.events[-1] == TokenKeysFetched(1, "OSError: connection refused")
        text = await bench.refused("new", TokenUnverifiable)
        assert text == "the keys of jwks_url could not be fetched: OSError: connection refused"
        bench.provider.error = None
        bench.provider.body = key_set(jwk("rsa", "new"))
        bench.clock.advance(10)
        assert await bench.user("new") == "42"
        assert await bench.refused("a") == "kid 'a' is not in the key set of jwks_url"

    run(Bench(Provider()), scenario)


def test_an_outage_from_the_start_is_unverifiable_not_invalid() -> None:
    """Without any keys a token may be good: clients are told to try again, not to go away."""

    async def scenario(bench: Bench) -> None:
        bench.provider.error = OSError("no route")
        for _ in range(5):
            await bench.refused("a", TokenUnverifiable)
        assert len(bench.provider.asked) == 1
        bench.clock.advance(10)
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
        bench.clock.advance(3600)
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
        bench.clock.advance(3600)
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
        bench.clock.advance(later_s)
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
    provider, events = SlowProvider(), RecordedEvents()
    keys = KeySet(TokenOptions(jwks_url=URL, jwks_timeout=Seconds(0.01)), ManualClock(), events, provider.fetch)

    async def scenario() -> None:
        arrived = asyncio.Event()
        events.on_event = lambda event: arrived.set() if event == TokenKeysFetched(1, "") else None
        with pytest.raises(TokenUnverifiable):
            await keys.find("a", "RS256")
        provider.release.set()
        async with asyncio.timeout(20):
            await arrived.wait()
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
        bench.clock.advance(3600)
        await bench.user("a")

    run(Bench(slow, timeout_s=30), scenario)
    assert seen == [TokenKeysFetched(1, ""), TokenKeysFetched(1, "ValueError: bad answer")]
