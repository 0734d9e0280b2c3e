"""Resuming: what a client with a ticket need not be asked or checked again.

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
    """Reads the tickets of requests, and makes the tickets that requests ask for."""

    def __init__(self, tickets: Tickets, revocations: Revocations, events: EventSink) -> None:
        self._tickets = tickets
        self._revocations = revocations
        self._events = events

    def connection(self, request: ConnectionRequest) -> ConnectionTicket | None:
        """What the ticket of a connect request holds. None if the ticket counts as absent."""
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
        """The grant that the ticket of a subscribe request holds. None if the ticket counts as absent."""
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
