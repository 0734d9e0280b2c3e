"""Resuming: what a client with a ticket need not be asked or checked again, and the tickets of a session.

A ticket that is refused counts as absent. Revocations are checked here, so that a revoked ticket counts as absent too,
and once more when the decision takes effect, like those of tokens. While this node may not know all revocations, the
later check refuses the ticket with the temporary error 100.
"""

from __future__ import annotations

from beaconfire.model.events import EventSink, TicketChecked
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.policy.tickets import ConnectionTicket, TicketRefused, Tickets
from beaconfire.session.revocations import Revocations
from beaconfire.session.session import Session


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
        if not request.ticket or self._tickets is None:
            return None
        try:
            ticket = self._tickets.read_connection(request.ticket)
            if request.user and request.user != ticket.identity.user:
                raise TicketRefused("user")
            if self._revocations.revokes_session(ticket.identity):
                raise TicketRefused("revoked")
        except TicketRefused as refused:
            self._events.emit(TicketChecked("connection", refused.reason))
            return None
        self._events.emit(TicketChecked("connection", "accepted"))
        return ticket

    def subscription(self, session: Session, request: SubscriptionRequest) -> SubscriptionGrant | None:
        """The grant that the ticket of a subscribe request holds. None as above."""
        if not request.ticket or self._tickets is None:
            return None
        user, channel = session.user, request.channel
        try:
            grant = self._tickets.read_subscription(request.ticket, user, channel)
            if self._revocations.revokes_subscription(user, channel, grant):
                raise TicketRefused("revoked")
        except TicketRefused as refused:
            self._events.emit(TicketChecked("subscription", refused.reason))
            return None
        self._events.emit(TicketChecked("subscription", "accepted"))
        return grant

    def issue(self, session: Session, token: str) -> str:
        """The ticket of the session: its identity, and the grants of its server-side subscriptions.

        `token` is that of the request. Empty if the session wants no tickets, or a ticket would save nothing. A grant
        for this session alone is left out.
        """
        if not session.wants_tickets or self._tickets is None or not (token or self._handlers_decide):
            return ""
        identity = session.identity
        grants = {
            channel: subscription.grant
            for channel, subscription in session.subscriptions.items()
            if subscription.options.server_side
            and not subscription.grant.client
            and (self._handlers_decide or subscription.grant is not identity.channels.get(channel))
        }
        return self._tickets.issue_connection(ConnectionTicket(identity, grants))

    def issue_subscription(self, session: Session, channel: str, token: str, grant: SubscriptionGrant) -> str:
        """The ticket of a subscription. `token` is that of the request. Empty as above, and for a grant for this
        session alone."""
        if not session.wants_tickets or self._tickets is None or not (token or self._handlers_decide) or grant.client:
            return ""
        return self._tickets.issue_subscription(session.user, channel, grant)
