"""Which tokens are void, and until when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import INTERNAL, TOKEN_EXPIRED, CommandError
from beaconfire.model.events import RevocationApplied
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.session.revocations import REVOCATIONS_MAX, Revocation, Revocations
from tests.fakes.events import EventRecorder

NOW = 1_700_000_000.0


class Table:
    """Revocations that end ten seconds from now, and look-ups in them."""

    def __init__(self, limit: int = REVOCATIONS_MAX) -> None:
        self.clock = ManualClock(unix_s=NOW)
        self.recorder = EventRecorder()
        self.revocations = Revocations(self.clock, self.recorder, limit)

    def revoke(self, offset: int = 1, **fields: Any) -> bool:
        until = 0.0 if "token_id" in fields else NOW
        revocation = Revocation(**{"expire_at_unix_s": NOW + 10, "issued_until_unix_s": until, **fields})
        return self.revocations.add(revocation, offset)

    def is_session_void(self, iat: float | None, user: str = "ann", jti: str = "", *channels: str) -> bool:
        granted = dict.fromkeys(channels, SubscriptionGrant())
        return self.revocations.revokes_session(Identity(user, issued_at_unix_s=iat, token_id=jti, channels=granted))

    def is_subscription_void(self, iat: float | None, channel: str = "news", jti: str = "") -> bool:
        grant = SubscriptionGrant(issued_at_unix_s=iat, token_id=jti)
        return self.revocations.revokes_subscription("ann", channel, grant)


def test_tokens_of_a_user_issued_until_now_are_void() -> None:
    """Also a token without `iat`, which counts as issued at 0, and subscription tokens. Others are not concerned."""
    table = Table()
    assert not table.is_session_void(0)
    assert table.revoke(user="ann")
    assert [table.is_session_void(iat) for iat in (0, NOW - 1, NOW, NOW + 0.001)] == [True, True, True, False]
    assert [table.is_subscription_void(iat) for iat in (0, NOW, NOW + 1)] == [True, True, False]
    assert not table.is_session_void(0, "bob")


def test_what_has_no_token_is_never_void() -> None:
    """An anonymous client, the identity that a policy gives, and a permission of the configuration."""
    table = Table()
    assert not table.is_subscription_void(None)
    table.revoke(user="ann")
    table.revoke(user="ann", channel="news")
    assert not table.is_session_void(None, "ann", "", "news")
    assert not table.is_subscription_void(None)
    assert not table.is_session_void(0, "")


def test_a_token_id_is_void_for_any_time_of_issue() -> None:
    """In connection and subscription tokens. A token without an id is another one."""
    table = Table()
    assert not table.is_subscription_void(0, "news", "t1")
    table.revoke(token_id="t1")
    assert table.is_session_void(NOW + 5, "ann", "t1")
    assert table.is_subscription_void(NOW + 5, "news", "t1")
    assert not table.is_session_void(NOW - 5, "ann", "t2")
    assert not table.is_session_void(NOW - 5, "ann", "")


def test_the_grant_of_one_channel_can_be_void() -> None:
    """That of a subscription token, and that of a connection token, which would subscribe the user again."""
    table = Table()
    table.revoke(user="ann", channel="news")
    assert [table.is_subscription_void(NOW, channel) for channel in ("news", "sport")] == [True, False]
    assert not table.is_subscription_void(NOW + 1)
    assert [table.is_session_void(NOW, "ann", "", channel) for channel in ("news", "sport")] == [True, False]
    assert not table.is_session_void(NOW)
    assert not table.is_session_void(NOW + 1, "ann", "", "news")


def test_a_revocation_ends() -> None:
    """At its time, also before its memory is freed. Then it can be made again, and one that has ended has no effect."""
    table = Table()
    table.revoke(user="ann")
    table.clock.advance(10)
    assert not table.is_session_void(0)
    assert len(table.revocations) == 1
    assert not table.revoke(user="bob")
    assert not table.revoke(user="ann")
    assert len(table.revocations) == 0
    table.revoke(user="ann", expire_at_unix_s=NOW + 11)
    table.revoke(user="bob", expire_at_unix_s=NOW + 12)
    table.clock.advance(1)
    assert table.revoke(user="ann", expire_at_unix_s=NOW + 20), "the tokens were valid in between"
    table.revocations.remove_ended()
    assert len(table.revocations) == 2
    table.clock.advance(1)
    table.revocations.remove_ended()
    assert len(table.revocations) == 1


def test_repetition_and_order_do_not_matter() -> None:
    """The later moment and the later end count. Only a later moment makes more tokens void."""
    table = Table()
    assert table.revoke(user="ann", issued_until_unix_s=5.0)
    assert not table.revoke(user="ann", issued_until_unix_s=5.0)
    assert not table.revoke(user="ann", issued_until_unix_s=4.0, expire_at_unix_s=NOW + 20)
    assert table.revoke(user="ann", issued_until_unix_s=6.0, expire_at_unix_s=NOW + 1)
    table.clock.advance(19)
    assert [table.is_session_void(iat) for iat in (6.0, 6.5)] == [True, False]
    assert table.revoke(token_id="t", expire_at_unix_s=NOW + 30)
    assert not table.revoke(token_id="t", expire_at_unix_s=NOW + 40)
    assert len(table.revocations) == 2


def test_oldest_revocation_is_that_with_the_lowest_offset() -> None:
    """A revocation that was made again has a new place."""
    table = Table()
    assert table.revocations.oldest() is None
    table.revoke(1, user="ann")
    table.revoke(2, user="ann", channel="news")
    table.revoke(3, token_id="t")
    table.revoke(4, user="ann")
    assert table.revocations.oldest() == (2, Revocation(NOW + 10, NOW, "ann", "news"))
    table.revoke(5, user="ann", channel="news")
    assert table.revocations.oldest() == (3, Revocation(NOW + 10, token_id="t"))


def test_a_full_table_takes_only_known_revocations() -> None:
    """To make a known one again needs no room."""
    table = Table(limit=2)
    table.revoke(user="ann")
    assert not table.revocations.is_full_for(("bob", "", ""))
    table.revoke(user="bob")
    assert table.revocations.is_full_for(("eve", "", ""))
    assert not table.revocations.is_full_for(("bob", "", ""))


def test_void_tokens_are_refused_with_109() -> None:
    """Then SDKs get a new token. Each refusal is counted."""
    table = Table()
    ann, grant = Identity("ann", issued_at_unix_s=NOW), SubscriptionGrant(issued_at_unix_s=NOW)
    table.revocations.check_identity(ann)
    table.revocations.check_grant("ann", "news", grant)
    table.revoke(user="ann")
    checks: list[Callable[[], None]] = [
        lambda: table.revocations.check_identity(ann),
        lambda: table.revocations.check_grant("ann", "news", grant),
    ]
    for check in checks:
        with pytest.raises(CommandError, match="was revoked: get a new token") as caught:
            check()
        assert caught.value.code is TOKEN_EXPIRED
    assert table.recorder.of(RevocationApplied) == [RevocationApplied("token")] * 2


def test_no_token_is_accepted_while_revocations_may_be_missing() -> None:
    """The error is temporary, so clients try again. What has no token is accepted."""
    table = Table()
    table.revocations.are_known = False
    checks: list[Callable[[], None]] = [
        lambda: table.revocations.check_identity(Identity("ann", issued_at_unix_s=NOW)),
        lambda: table.revocations.check_grant("ann", "news", SubscriptionGrant(issued_at_unix_s=NOW)),
    ]
    for check in checks:
        with pytest.raises(CommandError) as caught:
            check()
        assert caught.value.code is INTERNAL
        assert caught.value.code.temporary
    table.revocations.check_identity(Identity("ann"))
    table.revocations.check_grant("ann", "news", SubscriptionGrant())


def test_none_of_a_thousand_revoked_tokens_is_accepted() -> None:
    """Tokens of all three kinds of revocation, and all tokens that were issued later are accepted."""
    table = Table()
    for number in range(1000):
        fields = ({"user": f"u{number}"}, {"token_id": f"t{number}"}, {"user": f"u{number}", "channel": "news"})
        table.revoke(number, **fields[number % 3])
    identities = [Identity(f"u{n}", issued_at_unix_s=NOW, token_id=f"t{n}") for n in range(1000)]
    grants = [SubscriptionGrant(issued_at_unix_s=NOW, token_id=f"t{n}") for n in range(1000)]
    table_of = table.revocations
    accepted = [n for n in range(1000) if n % 3 != 2 and not table_of.revokes_session(identities[n])]
    accepted += [n for n in range(1000) if not table_of.revokes_subscription(f"u{n}", "news", grants[n])]
    assert accepted == []
    newer = [Identity(f"u{n}", issued_at_unix_s=NOW + 1, token_id=f"new{n}") for n in range(1000)]
    assert not any(map(table_of.revokes_session, newer))
