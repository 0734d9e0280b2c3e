"""Resume tickets: what they hold, and which are refused for what reason."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from beaconfire.auth.tickets import TICKET_LENGTH_MAX, SealedTickets
from beaconfire.base.clock import ManualClock
from beaconfire.model.events import LimitHit
from beaconfire.model.grants import SubscriptionGrant, SubscriptionOverride
from beaconfire.model.identity import Identity
from beaconfire.policy.tickets import TICKET_REFUSALS, ConnectionTicket, TicketRefused

from .samples import RecordedEvents

SECRET = b"a secret of the servers"
RULES = b"the rules of now"
GRANT = SubscriptionGrant(
    Raw(b'{"a":1}'), Raw(b"\x00\xff"), 1_700_000_090.0, True, SubscriptionOverride(presence=True), 5.0, "sub-1"
)
IDENTITY = Identity("ann", Raw(b'{"n":1}'), 0.0, False, {"room": GRANT}, Raw(b"1"), Raw(b'{"private":1}'), 7.0, "t-1")


def make(secret: bytes = SECRET, rules: bytes = RULES, clock: ManualClock | None = None) -> SealedTickets:
    return SealedTickets(secret, rules, 600.0, clock or ManualClock(), RecordedEvents(), os.urandom)


def refusal(tickets: SealedTickets, text: str) -> str:
    """The reason for which both kinds of tickets refuse the text."""
    with pytest.raises(TicketRefused) as caught:
        tickets.read_connection(text)
    assert caught.value.reason in TICKET_REFUSALS
    return caught.value.reason


def subscription_refusal(tickets: SealedTickets, text: str, user: str = "ann", channel: str = "room") -> str:
    with pytest.raises(TicketRefused) as caught:
        tickets.read_subscription(text, user, channel)
    return caught.value.reason


def test_connection_ticket_holds_the_identity_and_the_grants() -> None:
    """All fields, and payloads that are not JSON. Another process with the same secret and rules reads it."""
    ticket = ConnectionTicket(IDENTITY, {"room": GRANT, "#ann": SubscriptionGrant()})
    assert make().read_connection(make().issue_connection(ticket)) == ticket


def test_subscription_ticket_holds_the_grant() -> None:
    """For its user and its channel only."""
    tickets = make()
    text = tickets.issue_subscription("ann", "room", GRANT)
    assert tickets.read_subscription(text, "ann", "room") == GRANT
    assert subscription_refusal(tickets, text, user="eve") == "user"
    assert subscription_refusal(tickets, text, channel="other") == "channel"


def test_decision_without_a_token_can_be_revoked_by_its_user() -> None:
    """The ticket has the time of its issue, as if it were a token."""
    clock = ManualClock()
    tickets = make(clock=clock)
    connection = tickets.read_connection(tickets.issue_connection(ConnectionTicket(Identity("ann"))))
    assert connection.identity.issued_at_unix_s == clock.unix_s()
    text = tickets.issue_subscription("ann", "room", SubscriptionGrant())
    assert tickets.read_subscription(text, "ann", "room").issued_at_unix_s == clock.unix_s()


def test_ticket_ends_with_its_lifetime() -> None:
    """At this second."""
    clock = ManualClock()
    tickets = make(clock=clock)
    text = tickets.issue_connection(ConnectionTicket(IDENTITY))
    clock.advance(599)
    tickets.read_connection(text)
    clock.advance(1)
    assert refusal(tickets, text) == "expired"


def test_ticket_never_outlives_the_token() -> None:
    """A token that has expired gets no ticket: a server may accept such a token for a while (leeway)."""
    clock = ManualClock()
    tickets = make(clock=clock)
    identity = Identity("ann", expire_at_unix_s=clock.unix_s() + 60, issued_at_unix_s=1.0)
    grant = SubscriptionGrant(expire_at_unix_s=clock.unix_s() + 60)
    text = tickets.issue_connection(ConnectionTicket(identity))
    subscription = tickets.issue_subscription("ann", "room", grant)
    clock.advance(60)
    assert refusal(tickets, text) == "expired"
    assert subscription_refusal(tickets, subscription) == "expired"
    assert tickets.issue_connection(ConnectionTicket(identity)) == ""
    assert tickets.issue_subscription("ann", "room", grant) == ""


def test_ticket_of_other_rules_is_refused() -> None:
    """Another configuration may permit less."""
    text = make().issue_connection(ConnectionTicket(IDENTITY))
    assert refusal(make(rules=b"another rulebook"), text) == "rules"


def test_ticket_of_another_secret_is_forged() -> None:
    """For example of another server."""
    text = make(b"another").issue_connection(ConnectionTicket(IDENTITY))
    assert refusal(make(), text) == "forged"


def test_kinds_of_tickets_are_not_interchangeable() -> None:
    """A subscription ticket does not connect, and a connection ticket does not subscribe."""
    tickets = make()
    assert refusal(tickets, tickets.issue_subscription("ann", "room", GRANT)) == "forged"
    assert subscription_refusal(tickets, tickets.issue_connection(ConnectionTicket(IDENTITY))) == "forged"


def test_every_changed_or_cut_ticket_is_refused() -> None:
    """Each character counts."""
    tickets = make()
    text = tickets.issue_connection(ConnectionTicket(IDENTITY))
    for place in range(len(text)):
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        assert refusal(tickets, changed) in ("malformed", "forged")
        assert refusal(tickets, text[:place]) in ("malformed", "forged")
    assert refusal(tickets, text + "A") in ("malformed", "forged")


@given(st.text(max_size=200))
def test_any_other_text_is_refused(text: str) -> None:
    """Without any other error."""
    assert refusal(make(), text) in ("malformed", "forged")


def test_contents_of_a_ticket_are_not_readable() -> None:
    """`meta` is never sent to clients. Equal tickets have different texts."""
    tickets = make()
    ticket = ConnectionTicket(IDENTITY)
    assert tickets.issue_connection(ticket) != tickets.issue_connection(ticket)


def test_long_tickets_are_not_made_and_not_read() -> None:
    """The client then returns with its token. The limit is counted."""
    events = RecordedEvents()
    tickets = SealedTickets(SECRET, RULES, 600.0, ManualClock(), events, os.urandom)
    large = Identity("ann", Raw(b'"' + b"x" * TICKET_LENGTH_MAX + b'"'), issued_at_unix_s=1.0)
    assert tickets.issue_connection(ConnectionTicket(large)) == ""
    assert events.events == [LimitHit("ticket_length_max", "")]
    assert refusal(tickets, "A" * (TICKET_LENGTH_MAX + 1)) == "malformed"


def test_ticket_with_other_fields_is_of_other_rules() -> None:
    """A version of the server whose tickets have other fields."""
    tickets = make()
    text = tickets._seal(b"\x90", b"beaconfire connection ticket 1")
    assert refusal(tickets, text) == "rules"
