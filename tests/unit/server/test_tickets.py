"""The resume tickets of a server: from which secret they are made, and which changes make them void."""

from __future__ import annotations

import os
from typing import Any

import pytest

from beaconfire.auth.tickets import SealedTickets
from beaconfire.base.clock import ManualClock
from beaconfire.config import Config, load
from beaconfire.model.identity import Identity
from beaconfire.policy.tickets import ConnectionTicket, TicketRefused
from beaconfire.server.tickets import make_tickets
from tests.unit.auth.samples import RecordedEvents


def tickets_of(settings: dict[str, str], random_secret: bytes = b"random", version: str = "") -> SealedTickets:
    made = make(load(None, {}, settings), version, random_secret)
    assert made is not None
    return made


def make(config: Config, version: str | None, random_secret: bytes = b"random") -> SealedTickets | None:
    return make_tickets(config, version, random_secret, ManualClock(), RecordedEvents(), os.urandom)


def outcome(old: SealedTickets, new: SealedTickets) -> str:
    """What the new server says about a ticket of the old one."""
    text = old.issue_connection(ConnectionTicket(Identity("ann", issued_at_unix_s=1.0)))
    try:
        return new.read_connection(text).identity.user
    except TicketRefused as refused:
        return refused.reason


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"client.ping_interval": "20s", "server.workers": "2"}, "ann"),
        ({"channel.allow_subscribe_for_client": "true"}, "rules"),
        ({"client.user_personal_channel": "true"}, "rules"),
        ({"token.audience": "beaconfire"}, "rules"),
    ],
)
def test_other_rules_make_tickets_void(change: dict[str, str], expected: str) -> None:
    """Those that decide who may connect and subscribe, and no others."""
    before = {"client.ticket_secret": "s" * 32}
    assert outcome(tickets_of(before), tickets_of(before | change)) == expected


def test_other_handlers_make_tickets_void() -> None:
    """The application names the version of its rules."""
    settings = {"client.ticket_secret": "s" * 32}
    assert outcome(tickets_of(settings, version="1"), tickets_of(settings, version="2")) == "rules"


def test_secret_of_tickets() -> None:
    """The configured one, else that of tokens, else a random one of this start."""
    tokens, own = {"token.hmac_secret": "t" * 32}, {"client.ticket_secret": "s" * 32}
    assert outcome(tickets_of(tokens, b"1"), tickets_of(tokens, b"2")) == "ann"
    assert outcome(tickets_of(own, b"1"), tickets_of(own, b"2")) == "ann"
    assert outcome(tickets_of(tokens), tickets_of(tokens | own)) == "forged"
    assert outcome(tickets_of({}, b"1"), tickets_of({}, b"2")) == "forged"
    assert outcome(tickets_of({}, b"1"), tickets_of({}, b"1")) == "ann"


@pytest.mark.parametrize(("settings", "version"), [({"client.ticket_lifetime": "0"}, ""), ({}, None)])
def test_server_without_tickets(settings: dict[str, Any], version: str | None) -> None:
    """The setting switches them off, and so does a policy whose decisions are for one connection only."""
    assert make(load(None, {}, settings), version) is None
