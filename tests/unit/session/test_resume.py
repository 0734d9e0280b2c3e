"""Returning with a ticket: neither the token is verified nor a handler called, and revocations win."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from beaconfire.auth.tickets import SealedTickets
from beaconfire.base.clock import ManualClock
from beaconfire.base.errors import PERMISSION_DENIED, CommandError
from beaconfire.channels.options import ChannelOptions
from beaconfire.model.events import EventSink, TicketChecked
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.policy.port import Policy
from beaconfire.policy.tickets import ConnectionTicket
from tests.unit.kit import HarnessClient, NodeHarness, run
from tests.unit.policy.fakes import AnsweringPolicy


class Handlers(AnsweringPolicy):
    """Handlers of an application whose decisions may be in tickets. By default they have no opinion."""

    ticket_version = "1"

    def __init__(self, answers: Mapping[str, Any] = {}) -> None:
        super().__init__(answers.get)

    @property
    def decisions(self) -> list[str]:
        """The decisions that were asked."""
        return [decision for decision, _ in self.asked]


PERMISSIVE: Mapping[str, Any] = {"connect": Identity("ann"), "subscribe": SubscriptionGrant()}
"""The answers of handlers that permit everything, also without a token."""


def make_tickets(clock: ManualClock, events: EventSink) -> SealedTickets:
    return SealedTickets(b"secret", b"rules", 600.0, clock, events, os.urandom)


class Setup:
    """A node on which nobody may subscribe without a grant, and the tickets that it accepts."""

    def __init__(self) -> None:
        self.policy = Handlers()
        self.harness = NodeHarness(
            ChannelOptions(), policy=self.policy, make_tickets=make_tickets, allow_anonymous=False
        )
        self.tickets = make_tickets(self.harness.clock, self.harness.recorder)
        self.issued_at_unix_s = self.harness.clock.unix_s()

    def ticket(self, *channels: str, **fields: Any) -> str:
        grants = {channel: SubscriptionGrant() for channel in channels}
        identity = Identity("ann", channels=grants, issued_at_unix_s=self.issued_at_unix_s, **fields)
        return self.tickets.issue_connection(ConnectionTicket(identity, grants))

    def subscription_ticket(self, channel: str, **fields: Any) -> str:
        grant = SubscriptionGrant(issued_at_unix_s=self.issued_at_unix_s, **fields)
        return self.tickets.issue_subscription("ann", channel, grant)

    def connect(self, ticket: str, token: str = "", **fields: Any) -> HarnessClient:
        """Raises what connect raises."""
        client = self.harness.open_session()
        request = ConnectionRequest(token=token, ticket=ticket, **fields)
        run(self.harness.node.operations.connecting.connect(client.session, request, lambda start: None))
        return client

    def subscribe(self, client: HarnessClient, channel: str, ticket: str) -> None:
        """Raises what subscribe raises."""
        request = SubscriptionRequest(channel, ticket=ticket)
        run(self.harness.node.operations.subscribing.subscribe(client.session, request, lambda start: None))

    def outcomes(self) -> list[str]:
        return [event.outcome for event in self.harness.recorder.of(TicketChecked)]


def test_client_with_a_ticket_costs_no_decision() -> None:
    """Neither for the connection, nor for its server-side subscriptions, nor for a subscription with a ticket."""
    setup = Setup()
    client = setup.connect(setup.ticket("server"))
    setup.subscribe(client, "room", setup.subscription_ticket("room"))
    assert client.session.user == "ann"
    assert set(client.session.subscriptions) == {"server", "room"}
    assert setup.policy.decisions == []
    assert setup.harness.calls.completed.count("verify") == 0
    assert setup.outcomes() == ["accepted", "accepted"]


def test_refused_ticket_counts_as_absent() -> None:
    """The token of the same request is used. Without one, the outcome is that of a request without a token."""
    setup = Setup()
    setup.harness.tokens.connections.known["token"] = Identity("bob")
    assert setup.connect("A" * 100, "token").session.user == "bob"
    with pytest.raises(CommandError, match="no token"):
        setup.connect("A" * 100)
    assert setup.outcomes() == ["forged", "forged"]


def test_revoked_user_does_not_return_with_a_ticket() -> None:
    """Nor with one whose decision was made without a token. The token of the request is refused as well."""
    setup = Setup()
    ticket = setup.ticket()
    handlers_only = setup.tickets.issue_connection(ConnectionTicket(Identity("ann")))
    setup.harness.revoke(user="ann")
    for revoked in (ticket, handlers_only):
        with pytest.raises(CommandError, match="no token"):
            setup.connect(revoked)
    assert setup.outcomes() == ["revoked", "revoked"]


def test_revoked_token_id_does_not_return_with_a_ticket() -> None:
    """The ticket names the token that it stands for."""
    setup = Setup()
    ticket = setup.ticket(token_id="t-1")
    setup.harness.revoke(token_id="t-1")
    with pytest.raises(CommandError, match="no token"):
        setup.connect(ticket)
    assert setup.outcomes() == ["revoked"]


def test_revoked_subscription_ticket_counts_as_absent() -> None:
    """The policy is asked as for any request, and does not permit the channel."""
    setup = Setup()
    ticket = setup.subscription_ticket("room")
    client = setup.connect(setup.ticket())
    setup.harness.revoke(user="ann", channel="room")
    with pytest.raises(CommandError) as refused:
        setup.subscribe(client, "room", ticket)
    assert refused.value.code is PERMISSION_DENIED
    assert setup.outcomes() == ["accepted", "revoked"]


def test_none_of_many_revoked_tickets_is_accepted() -> None:
    """A thousand clients return after the revocation of their tokens."""
    setup = Setup()
    tickets = [setup.ticket(token_id=f"t-{number}") for number in range(1000)]
    for number in range(1000):
        setup.harness.revoke(token_id=f"t-{number}")
    for ticket in tickets:
        with pytest.raises(CommandError):
            setup.connect(ticket)
    assert setup.outcomes() == ["revoked"] * 1000


def test_no_ticket_is_accepted_while_revocations_may_be_missing() -> None:
    """The client gets the temporary error 100 and tries again."""
    setup = Setup()
    setup.harness.node.work.revocations.are_known = False
    with pytest.raises(CommandError) as refused:
        setup.connect(setup.ticket())
    assert refused.value.code.temporary


def test_ticket_of_another_user_is_refused() -> None:
    """A subscription ticket is valid for its user, and a request that names another user than its ticket is wrong."""
    setup = Setup()
    client = setup.connect(setup.ticket())
    with pytest.raises(CommandError):
        setup.subscribe(client, "room", setup.tickets.issue_subscription("bob", "room", SubscriptionGrant()))
    with pytest.raises(CommandError):
        setup.connect(setup.ticket(), user="bob")
    assert setup.outcomes() == ["accepted", "user", "user"]


def test_private_channel_needs_a_ticket_that_is_accepted() -> None:
    """Also where everyone may subscribe: a refused ticket does not replace the subscription token."""
    setup = Setup()
    client = setup.connect(setup.ticket())
    with pytest.raises(CommandError, match="private"):
        setup.subscribe(client, "$room", "A" * 100)
    setup.subscribe(client, "$room", setup.subscription_ticket("$room"))


def test_session_of_a_ticket_expires_with_the_token() -> None:
    """The ticket keeps the expiry of the token."""
    setup = Setup()
    expire_at_unix_s = setup.harness.clock.unix_s() + 60
    client = setup.connect(setup.ticket(expire_at_unix_s=expire_at_unix_s))
    assert client.session.identity.expire_at_unix_s == expire_at_unix_s


def test_node_without_tickets_ignores_them() -> None:
    """The token counts."""
    harness = NodeHarness(allow_anonymous=False)
    harness.tokens.connections.known["token"] = Identity("bob")
    client = harness.open_session()
    request = ConnectionRequest(token="token", ticket="A" * 100)
    run(harness.node.operations.connecting.connect(client.session, request, lambda start: None))
    assert client.session.user == "bob"


def make_harness(policy: Policy | None = None) -> NodeHarness:
    """A node that knows the token `ann` of the user ann, which expires, and a channel token `room` of hers."""
    harness = NodeHarness(policy=policy, make_tickets=make_tickets, allow_anonymous=False)
    expire_at_unix_s = harness.clock.unix_s() + 100
    harness.tokens.connections.known["ann"] = Identity(
        "ann", expire_at_unix_s=expire_at_unix_s, client_refresh=True, issued_at_unix_s=1.0
    )
    harness.tokens.add_subscription(
        "room", "ann", "room", expire_at_unix_s=expire_at_unix_s, client_refresh=True, issued_at_unix_s=1.0
    )
    return harness


def connected(harness: NodeHarness, **fields: Any) -> tuple[HarnessClient, str]:
    """Connects. Returns the client, and the ticket of the result."""
    client = harness.open_session()
    return client, client.request("connect", **fields).get("ticket", "")


def test_tickets_of_results_let_a_client_return_without_a_decision() -> None:
    """Those of connect, subscribe, refresh and sub_refresh. The client keeps a ticket that was accepted."""
    harness = make_harness()
    client, ticket = connected(harness, token="ann", want_tickets=True)
    room = client.request("subscribe", channel="room", token="room")["ticket"]
    renewed = client.request("refresh", token="ann")["ticket"]
    renewed_room = client.request("sub_refresh", channel="room", token="room")["ticket"]
    assert len({ticket, renewed, room, renewed_room}) == 4
    verified = harness.calls.completed.count("verify")
    for connection, subscription in ((ticket, room), (renewed, renewed_room)):
        again, newer = connected(harness, ticket=connection, want_tickets=True)
        result = again.request("subscribe", channel="room", ticket=subscription)
        assert (newer, again.session.user, result.get("ticket", "")) == ("", "ann", "")
    assert harness.calls.completed.count("verify") == verified


def test_clients_that_do_not_want_tickets_get_none() -> None:
    """Standard SDKs do not know them."""
    harness = make_harness()
    client, ticket = connected(harness, token="ann")
    assert ticket == ""
    assert "ticket" not in client.request("subscribe", channel="room", token="room")
    assert "ticket" not in client.request("refresh", token="ann")
    assert "ticket" not in client.request("sub_refresh", channel="room", token="room")


def test_decisions_without_a_token_have_a_ticket_only_if_handlers_make_them() -> None:
    """The configured rules cost less than a ticket."""
    open_to_all = ChannelOptions(allow_subscribe_for_client=True, allow_subscribe_for_anonymous=True)
    rules = NodeHarness(open_to_all, make_tickets=make_tickets, allow_anonymous=True)
    client, ticket = connected(rules, want_tickets=True)
    assert (ticket, client.request("subscribe", channel="room").get("ticket", "")) == ("", "")
    handlers = make_harness(Handlers(PERMISSIVE))
    client, ticket = connected(handlers, want_tickets=True)
    assert ticket
    assert client.request("subscribe", channel="room")["ticket"]


def test_grant_for_one_client_id_is_in_no_ticket() -> None:
    """The client that returns has another id."""
    harness = make_harness(Handlers())
    client, _ = connected(harness, token="ann", want_tickets=True)
    harness.tokens.add_subscription("mine", "ann", "room", client.id, client_refresh=True, issued_at_unix_s=1.0)
    assert "ticket" not in client.request("subscribe", channel="room", token="mine")
    assert "ticket" not in client.request("sub_refresh", channel="room", token="mine")


def test_ticket_holds_the_server_side_subscriptions_of_the_request() -> None:
    """Their tokens are not verified again, also after a refresh."""
    harness = make_harness()
    client, ticket = connected(harness, token="ann", subs={"room": {"token": "room"}}, want_tickets=True)
    verified = harness.calls.completed.count("verify")
    again, _ = connected(harness, ticket=ticket, subs={"room": {}})
    assert set(again.session.subscriptions) == {"room"}
    assert harness.calls.completed.count("verify") == verified
    renewed = client.request("refresh", token="ann")["ticket"]
    assert set(connected(harness, ticket=renewed, subs={"room": {}})[0].session.subscriptions) == {"room"}


def test_handlers_are_not_asked_again_about_the_channels_of_a_token() -> None:
    """Also if they had no opinion."""
    policy = Handlers()
    harness = make_harness(policy)
    identity = Identity("ann", channels={"news": SubscriptionGrant()}, issued_at_unix_s=1.0)
    harness.tokens.connections.known["with channels"] = identity
    _, ticket = connected(harness, token="with channels", want_tickets=True)
    assert policy.decisions == ["connect", "subscribe"]
    again, _ = connected(harness, ticket=ticket)
    assert set(again.session.subscriptions) == {"news"}
    assert policy.decisions == ["connect", "subscribe"]
