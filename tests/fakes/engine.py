"""A broker and a presence store whose calls suspend and fail as a test decides. Their state is the memory engine's."""

from __future__ import annotations

from collections.abc import Sequence

from beaconfire.engines.interceptor import InterceptedBroker, InterceptedPresence
from beaconfire.engines.port import Broker, PresenceStore
from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.testing.calls import CallControl, ControlledCalls, ManualCalls

__all__ = ["CallControl", "ControlledBroker", "ControlledPresence", "ManualCalls", "NoCallbacks"]


class ControlledBroker(InterceptedBroker):
    """A broker whose calls a `CallControl` suspends and fails."""

    def __init__(self, calls: CallControl, inner: Broker) -> None:
        super().__init__(inner, ControlledCalls(calls))


class ControlledPresence(InterceptedPresence):
    """A presence store whose calls a `CallControl` suspends and fails."""

    def __init__(self, calls: CallControl, inner: PresenceStore) -> None:
        super().__init__(inner, ControlledCalls(calls))


class NoCallbacks:
    """Implements `BrokerEvents` and `ControlHandler` for tests without announcements: drops everything."""

    def on_publication(
        self,
        channel: str,
        publication: Publication,
        epoch: str,
        previous: int,
        exclude: Sequence[str],
        delta: bool = False,
    ) -> None:
        pass

    def on_join(self, channel: str, info: ClientInfo) -> None:
        pass

    def on_leave(self, channel: str, info: ClientInfo) -> None:
        pass

    def on_link_down(self, channels: Sequence[str] | None) -> None:
        pass

    def on_link_up(self, channels: Sequence[str] | None) -> None:
        pass

    def on_control(self, message: bytes) -> None:
        pass

    def on_survey(self, request: bytes) -> bytes:
        return b""
