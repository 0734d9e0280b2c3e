"""From the channel name in a command to its namespace."""

from __future__ import annotations

from beaconfire.base.errors import BAD_REQUEST, CommandError
from beaconfire.channels.namespaces import Namespace, Namespaces
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.session.session import Session


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
