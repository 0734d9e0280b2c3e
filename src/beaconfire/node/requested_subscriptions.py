"""Server-side subscriptions that the server API has requested for connected sessions.

The server API has its answer when a request arrives here, so a temporary failure is repeated a few times. For each
session and channel only the newest request counts, and an unsubscribe ends it, also while its decision is being made.
"""

from __future__ import annotations

from typing import Final

from beaconfire.base.backoff import Backoff
from beaconfire.base.errors import CommandError, Disconnect
from beaconfire.base.loop import Runtime
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.base.timers import Timer
from beaconfire.channels.namespaces import Namespaces
from beaconfire.model.events import EventSink, WorkDropped
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.publication import to_payload
from beaconfire.model.pushes import PublicationPush, SubscribePush
from beaconfire.model.requests import SubscriptionRequest
from beaconfire.model.results import SubscriptionStart
from beaconfire.node.cluster import SubscribeSessions
from beaconfire.policy.port import Via
from beaconfire.session.operations.assembly import Operations
from beaconfire.session.session import Session, SessionPhase

TRIES_MAX: Final = 6
"""How often a subscribe is tried: for some six seconds, if the engine fails at once."""


class _Request:
    """One request for one session, until the session is subscribed, refused or unsubscribed."""

    __slots__ = ("failures", "message", "timer")

    def __init__(self, message: SubscribeSessions) -> None:
        self.message = message
        self.failures = 0
        self.timer: Timer | None = None
        """Set while the request waits for its repetition."""


class RequestedSubscriptions:
    """Makes the subscriptions, and repeats what has failed."""

    def __init__(
        self,
        namespaces: Namespaces,
        operations: Operations,
        background: BackgroundTasks,
        runtime: Runtime,
        events: EventSink,
    ) -> None:
        self._namespaces = namespaces
        self._operations = operations
        self._background = background
        self._timers = runtime.timers
        self._backoff = Backoff(runtime.random)
        self._events = events
        self._requests: dict[tuple[str, str], _Request] = {}
        """The current request for each client id and channel."""

    def start(self, session: Session, message: SubscribeSessions) -> None:
        """Subscribes the session. A session that is subscribed already or has too many channels stays as it is."""
        self.cancel(session, message.channel)
        request = self._requests[session.client, message.channel] = _Request(message)
        self._try(session, request)

    def cancel(self, session: Session, channel: str) -> None:
        """Ends the request for this channel, if there is one."""
        request = self._requests.pop((session.client, channel), None)
        if request is not None and request.timer is not None:
            request.timer.cancel()

    def cancel_all(self, session: Session) -> None:
        """Ends the requests for all channels of the session."""
        for client, channel in list(self._requests):
            if client == session.client:
                self.cancel(session, channel)

    def __len__(self) -> int:
        """The number of requests that are not finished."""
        return len(self._requests)

    def _is_current(self, session: Session, request: _Request) -> bool:
        return self._requests.get((session.client, request.message.channel)) is request

    def _try(self, session: Session, request: _Request) -> None:
        subscribing = self._subscribe(session, request)
        if "subscribe" in self._operations.suspending:  # the engine, or a handler
            self._background.start(subscribing)
        else:
            self._background.start_engine_work(subscribing)

    async def _subscribe(self, session: Session, request: _Request) -> None:
        try:
            await self._make(session, request)
        except CommandError as error:
            if error.code.temporary and not session.has_ended() and self._is_current(session, request):
                self._repeat_later(session, request, error)
        except Disconnect as disconnect:
            session.end_with(disconnect)
        finally:
            if request.timer is None and self._is_current(session, request):
                self.cancel(session, request.message.channel)

    async def _make(self, session: Session, request: _Request) -> None:
        """Makes the subscription, unless the request has ended while the policy decided."""
        message, operations = request.message, self._operations
        grant = SubscriptionGrant(
            info=to_payload(message.info),
            data=to_payload(message.data),
            expire_at_unix_s=message.expire_at_unix_s,
            override=message.override,
        )
        wanted = SubscriptionRequest(message.channel, since=message.since)
        operations.preparation.check_limits(session, message.channel)
        namespace = self._namespaces.resolve(message.channel)
        grant = await operations.decisions.subscribe(session, wanted, namespace, Via.SERVER_API, grant)
        if not self._is_current(session, request):
            return
        operations.preparation.check_limits(session, message.channel)  # the policy may have suspended
        prepared = await operations.preparation.prepare(session, wanted, namespace, grant, server_side=True)
        operations.preparation.enter(session, [prepared], lambda: _push_start(session, prepared.start))

    def _repeat_later(self, session: Session, request: _Request, error: CommandError) -> None:
        request.failures += 1
        if request.failures >= TRIES_MAX:
            self._events.emit(WorkDropped("subscribe", 1, f"channel {request.message.channel!r}: {error}"))
            return

        def repeat() -> None:
            request.timer = None
            if session.phase is SessionPhase.CONNECTED:
                self._try(session, request)
            else:
                self.cancel(session, request.message.channel)

        request.timer = self._timers.after(self._backoff.delay_s(request.failures), repeat)


def _push_start(session: Session, start: SubscriptionStart) -> None:
    """Tells the client that it is subscribed, and sends the publications that it has missed."""
    offset, epoch = start.position or (0, "")
    session.push(SubscribePush(start.channel, start.recoverable, epoch, offset, start.position is not None, start.data))
    for publication in start.publications:
        session.push(PublicationPush(start.channel, publication))
