"""Resuming: what a client with a ticket need not be asked or checked again, and the tickets of a session.

A ticket that is refused counts as absent. Revocations are checked here, so that a revoked ticket counts as absent too,
and once more when the decision takes effect, like those of tokens. While this node may not know all revocations, the
later check refuses the ticket with the temporary error 100.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from beaconfire.model.events import EventSink, TicketChecked
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.policy.tickets import ConnectionTicket, TicketRefused, Tickets
from beaconfire.session.revocations import Revocations
from beaconfire.session.session import Session

T = TypeVar("T")


class Resuming:
    """Reads the tickets of requests, and makes the tickets of results. Never suspends."""

    def __init__(
        self, tickets: Tickets | None, handlers_decide: bool, revocations: Revocations, events: EventSink
    ) -> None:
        """Without `tickets`, each ticket of a request is ignored, and no result has one.

        `handlers_decide` says whether a decision without a token costs anything. If not, only decisions about tokens
        get a ticket.
        """
        self._tickets = tickets
        self._handlers_decide = handlers_decide
        self._revocations = revocations
        self._events = events

    def connection(self, request: ConnectionRequest) -> ConnectionTicket | None:
        """What the ticket of a connect request holds. None if the request has none, or if it counts as absent."""

        def read(tickets: Tickets) -> ConnectionTicket:
            ticket = tickets.read_connection(request.ticket)
            if request.user and request.user != ticket.identity.user:
                raise TicketRefused("user")
            if self._revocations.revokes_session(ticket.identity):
                raise TicketRefused("revoked")
            return ticket

        return self._read("connection", request.ticket, read)

    def subscription(self, session: Session, request: SubscriptionRequest) -> SubscriptionGrant | None:
        """The grant that the ticket of a subscribe request holds. None as above."""
        user, channel = session.user, request.channel

        def read(tickets: Tickets) -> SubscriptionGrant:
            grant = tickets.read_subscription(request.ticket, user, channel)
            if self._revocations.revokes_subscription(user, channel, grant):
                raise TicketRefused("revoked")
            return grant

        return self._read("subscription", request.ticket, read)

    def _read(self, kind: str, ticket: str, read: Callable[[Tickets], T]) -> T | None:
        """What `read` returns. None if there is no ticket, or if `read` raises TicketRefused. Counts the outcome."""
        if not ticket or self._tickets is None:
            return None
        try:
            found = read(self._tickets)
        except TicketRefused as refused:
            self._events.emit(TicketChecked(kind, refused.reason))
            return None
        self._events.emit(TicketChecked(kind, "accepted"))
        return found

    def issue(self, session: Session, token: str) -> str:
        """The ticket of the session: its identity, and the grants of its server-side subscriptions.

        `token` is that of the request. Empty if the session wants no tickets, or a ticket would save nothing. A grant
        for this session alone is left out.
        """
        tickets = self._tickets_for(session, token)
        if tickets is None:
            return ""
        identity = session.identity
        grants = {
            channel: subscription.grant
            for channel, subscription in session.subscriptions.items()
            if subscription.options.server_side
            and not subscription.grant.client
            and (self._handlers_decide or subscription.grant is not identity.channels.get(channel))
        }
        return tickets.issue_connection(ConnectionTicket(identity, grants))

    def issue_subscription(self, session: Session, channel: str, token: str, grant: SubscriptionGrant) -> str:
        """The ticket of a subscription. `token` is that of the request. Empty as above, and for a grant for this
        session alone."""
        tickets = self._tickets_for(session, token)
        return tickets.issue_subscription(session.user, channel, grant) if tickets and not grant.client else ""

    def _tickets_for(self, session: Session, token: str) -> Tickets | None:
        """None if the session wants no tickets, or if the decision about a request with this token costs nothing."""
        return self._tickets if session.wants_tickets and (token or self._handlers_decide) else None
