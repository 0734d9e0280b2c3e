"""The port for resume tickets: what a client returns with, instead of having its token verified and handlers called.

A ticket holds a decision that was made before. It never permits more, or for longer, than that decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from msgspec import Struct

from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import Identity

TICKET_REFUSALS: Final = ("malformed", "forged", "rules", "expired", "user", "channel", "revoked")
"""The reasons for which a ticket counts as absent."""


class TicketRefused(Exception):
    """The ticket counts as absent. `reason` is one of `TICKET_REFUSALS`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ConnectionTicket(Struct, frozen=True):
    """The identity that connect has decided on, and the grants of its server-side subscriptions by channel."""

    identity: Identity
    grants: Mapping[str, SubscriptionGrant] = {}


class Tickets(Protocol):
    """Makes and reads tickets. Never suspends."""

    def issue_connection(self, ticket: ConnectionTicket) -> str:
        """The ticket as text for the client. Empty if it would be too long, or there would be no time left."""

    def issue_subscription(self, user: str, channel: str, grant: SubscriptionGrant) -> str:
        """The ticket of one subscription as text for the client. Empty as above."""

    def read_connection(self, text: str) -> ConnectionTicket:
        """Raises TicketRefused. The caller must check whether the identity and the grants were revoked."""

    def read_subscription(self, text: str, user: str, channel: str) -> SubscriptionGrant:
        """The grant of this user for this channel. Raises TicketRefused. The caller must check whether the grant was
        revoked."""
