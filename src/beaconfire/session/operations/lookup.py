"""What the operations check first: that the client has connected, and the name of the channel."""

from __future__ import annotations

from beaconfire.base.errors import BAD_PROTOCOL, BAD_REQUEST, CommandError, Disconnect
from beaconfire.channels.namespaces import Namespace, Namespaces
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.session.session import Session, SessionPhase


class ChannelLookup:
    """Checks channel names that clients send."""

    def __init__(self, namespaces: Namespaces, events: EventSink) -> None:
        self._namespaces = namespaces
        self._events = events

    def check_length(self, session: Session, channel: str) -> None:
        """Raises CommandError 107 for a name longer than `channel_names.max_length`."""
        if self._namespaces.too_long(channel):
            self._events.emit(LimitHit("channel_names.max_length", session.client))
            raise CommandError(BAD_REQUEST, "channel is longer than channel_names.max_length")

    def namespace(self, session: Session, channel: str) -> Namespace:
        """The namespace of the channel. Raises CommandError 102 if it is unknown, and 107 for an invalid name."""
        self.check_length(session, channel)
        namespace = self._namespaces.resolve(channel)
        if channel not in session.subscriptions:  # a server-side subscription may have any name
            self._namespaces.check_name(channel, namespace)
        return namespace


def check_connected(session: Session) -> None:
    """Raises Disconnect 3501 for a session that has not connected, whatever its protocol lets its client do.

    A session that has ended passes: a command that it sent before its end comes to its end.
    """
    phase = session.phase
    if phase is not SessionPhase.CONNECTED and phase is not SessionPhase.ENDED:
        raise Disconnect(BAD_PROTOCOL, "the client must connect first")
