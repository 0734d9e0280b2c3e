"""A token whose signature was verified is not verified again, as long as its key is in use."""

from __future__ import annotations

import msgspec
import pytest

from beaconfire.auth import tokens
from beaconfire.auth.algorithms import UnverifiedToken, VerificationKey, verified_payload
from beaconfire.auth.issue import sign_claims
from beaconfire.auth.options import TokenOptions
from beaconfire.auth.verified_tokens import REMEMBERED_LENGTH_MAX, VerifiedTokens
from beaconfire.base.clock import ManualClock
from beaconfire.policy.tokens import TokenExpired, TokenInvalid

from .jwks_setup import Provider, Setup, run
from .samples import NOW, SECRET, at_once, jwk, key_set, make_verifier, token_of

KEY = VerificationKey(SECRET.encode(), ("HS256",), "a key")
CLAIMS = {"sub": msgspec.Raw(b'"ann"')}


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources of the keys with which signatures were checked, in this order."""
    sources: list[str] = []

    def count(token: UnverifiedToken, key: VerificationKey) -> bytes:
        sources.append(key.source)
        return verified_payload(token, key)

    monkeypatch.setattr(tokens, "verified_payload", count)
    return sources


def test_signature_is_verified_once_for_equal_tokens(verified: list[str]) -> None:
    """For connection tokens and for subscription tokens. The claims are the same each time."""
    verifier = make_verifier()
    token, subscription = token_of(sub="ann", jti="1"), token_of(sub="ann", channel="room")
    first = at_once(verifier.verify_connection(token))
    assert at_once(verifier.verify_connection(token)) == first
    permitted = at_once(verifier.verify_subscription(subscription))
    assert at_once(verifier.verify_subscription(subscription)) == permitted
    assert len(verified) == 2


def test_expiry_is_checked_each_time(verified: list[str]) -> None:
    """The signature of the expired token is not verified again."""
    clock = ManualClock()
    verifier, token = make_verifier(clock=clock), token_of(sub="ann", exp=int(NOW) + 60)
    at_once(verifier.verify_connection(token))
    clock.advance(60)
    with pytest.raises(TokenExpired):
        at_once(verifier.verify_connection(token))
    assert len(verified) == 1


def test_refused_tokens_are_not_remembered(verified: list[str]) -> None:
    """Otherwise anyone could fill the memory."""
    verifier, forged = make_verifier(), sign_claims("another " + SECRET, {"sub": "ann"})
    for _ in range(2):
        with pytest.raises(TokenInvalid, match="signature does not match"):
            at_once(verifier.verify_connection(forged))
    assert len(verified) == 2


def test_token_with_another_signature_is_another_token(verified: list[str]) -> None:
    """A known payload does not help a forged signature."""
    verifier, token = make_verifier(), token_of(sub="ann")
    at_once(verifier.verify_connection(token))
    head = token.rpartition(".")[0]
    with pytest.raises(TokenInvalid):
        at_once(verifier.verify_connection(head + "." + "A" * 43))
    assert len(verified) == 2


def test_tokens_of_the_previous_secret_end_with_it() -> None:
    """Also if they were verified before."""
    clock = ManualClock()
    options = TokenOptions(
        hmac_secret="new " + SECRET, hmac_previous_secret=SECRET, hmac_previous_secret_valid_until=int(NOW) + 60
    )
    verifier, token = make_verifier(options, clock), token_of(sub="ann")
    at_once(verifier.verify_connection(token))
    clock.advance(60)
    with pytest.raises(TokenInvalid, match="signature does not match"):
        at_once(verifier.verify_connection(token))


def test_key_that_left_the_key_set_makes_its_tokens_invalid(verified: list[str]) -> None:
    """The key set of each fetch has its own keys, so after a fetch each token is verified once more."""

    async def scenario(setup: Setup) -> None:
        await setup.user("a")
        await setup.user("a")
        assert len(verified) == 1
        setup.advance(3600)
        await setup.user("a")
        assert len(verified) == 2
        setup.provider.body = key_set(jwk("ed25519", "a"))
        setup.advance(3600)
        await setup.error("a")

    run(Setup(Provider()), scenario)


def test_least_recently_used_token_is_forgotten() -> None:
    """The number of tokens is limited."""
    known = VerifiedTokens(limit=2)
    known.add("a", KEY, CLAIMS)
    known.add("b", KEY, CLAIMS)
    assert known.find("a", [KEY]) is CLAIMS
    known.add("c", KEY, CLAIMS)
    assert [known.find(token, [KEY]) for token in "abc"] == [CLAIMS, None, CLAIMS]
    assert len(known) == 2


def test_long_tokens_are_not_remembered() -> None:
    """Their number would not limit their memory."""
    known = VerifiedTokens()
    known.add("x" * (REMEMBERED_LENGTH_MAX + 1), KEY, CLAIMS)
    known.add("x" * REMEMBERED_LENGTH_MAX, KEY, CLAIMS)
    assert len(known) == 1


def test_equal_key_that_is_another_object_does_not_count() -> None:
    """An equal key of a later fetch may have been withdrawn in between."""
    known = VerifiedTokens()
    known.add("a", KEY, CLAIMS)
    assert known.find("a", [VerificationKey(SECRET.encode(), ("HS256",), "a key")]) is None
    assert len(known) == 0
