"""A recovery that is too large for one reply: the rest follows in pushes, one piece after the other.

Theory of operation. The subscribe reply holds the first piece. Each further piece is read from history after the
connection has taken the piece before, so a client costs the memory of one piece, however much it missed and however
slowly it reads. Between two pieces no stored publication is held for the subscription (see
`Subscription.fall_behind`). When a read reaches the top of the stream, the subscription goes live.

The position of the subscription is always the end of its last piece, so a client whose connection is cut recovers from
there. If history no longer reaches back to the position, the client is told that publications are missing. A read that
fails because the engine is not available is repeated until it succeeds: the client has its position and loses nothing.
The recoveries of one session take turns, one piece each, so that a channel with few missed publications does not wait
for a channel with many.
"""

from __future__ import annotations

from typing import Final

from beaconfire.base.backoff import Backoff
from beaconfire.base.errors import EngineUnavailable
from beaconfire.base.loop import LoopTurns, Runtime
from beaconfire.base.tasks import BackgroundTasks
from beaconfire.channels.service import ChannelService
from beaconfire.delivery.subscription import Gap, Subscription
from beaconfire.model.events import EventSink, report_error
from beaconfire.model.position import StreamPosition
from beaconfire.session.operations.strategy import push_missed
from beaconfire.session.options import ClientOptions
from beaconfire.session.recovery import read_latest, read_on
from beaconfire.session.reply_budget import ReplyBudget, push_size
from beaconfire.session.session import Session

DELAY_MAX_S: Final = 1.0
"""The longest wait before a failed read is repeated. The end of the node waits for it."""


class RecoveryInPieces:
    """Continues recoveries after their replies."""

    def __init__(
        self,
        channels: ChannelService,
        options: ClientOptions,
        background: BackgroundTasks,
        turns: LoopTurns,
        runtime: Runtime,
        events: EventSink,
    ) -> None:
        self._channels = channels
        self._options = options
        self._background = background
        self._turns = turns
        self._timers = runtime.timers
        self._backoff = Backoff(runtime.random)
        self._events = events

    def start(self, session: Session, subscription: Subscription) -> None:
        """Continues the recovery of a subscription that is behind, in turns with the session's other recoveries."""
        if session.recoveries is not None:
            session.recoveries[subscription.channel] = subscription
            return
        session.recoveries = {subscription.channel: subscription}
        self._background.start(self._run(session, session.recoveries))

    async def _run(self, session: Session, recoveries: dict[str, Subscription]) -> None:
        failures = 0
        """Failed reads in a row."""
        try:
            while recoveries:
                subscription = recoveries.pop(next(iter(recoveries)))
                try:
                    await self._send_next(session, subscription)
                    failures = 0
                except EngineUnavailable:
                    failures += 1
                    await self._timers.wait(min(self._backoff.delay_s(failures), DELAY_MAX_S))
                if subscription.reached is not None:
                    recoveries[subscription.channel] = subscription
        finally:
            session.recoveries = None

    async def _send_next(self, session: Session, subscription: Subscription) -> None:
        """Sends the next piece. Raises EngineUnavailable, and then the subscription is where it was. On any other
        failure the subscription ends, and the client must recover again."""
        try:
            await self._turns.wait_for_next()
            await session.wait_until_writable()
            if subscription.reached is not None:
                await self._send_piece(session, subscription, subscription.reached)
        except EngineUnavailable:
            if subscription.reached is not None:
                subscription.fall_behind(subscription.reached)  # drops what was held since the read began
            raise
        except Gap as gap:
            _give_up(session, subscription, str(gap))
        except Exception as error:  # noqa: BLE001 - reported; a failed recovery must not stop the session's others
            report_error(self._events, "recovery", error)
            _give_up(session, subscription, "history could not be read")

    async def _send_piece(self, session: Session, subscription: Subscription, since: StreamPosition) -> None:
        """Reads the publications after `since` and sends those that fit. Raises Gap if history does not reach back."""
        channel, namespace = subscription.channel, subscription.namespace
        subscription.hold_again()
        if namespace.cache_mode:
            page = await self._channels.read_for_subscriber(channel, namespace, 1, reverse=True)
        else:
            limit = self._options.recovery_max_publication_limit
            page = await self._channels.read_for_subscriber(channel, namespace, limit, since)
        if subscription.reached != since:
            return  # the subscription ended while history was read
        if not subscription.place(page.position):
            subscription.fall_behind(since)
            return  # announcements were missed during the read: the next piece is read from the same position
        piece = read_latest(since, page) if namespace.cache_mode else read_on(since, page)
        if not subscription.strategy.is_conflated:  # a conflated subscription gets one publication of the page
            piece = ReplyBudget(self._options.reply_size_limit, push_size(channel)).take(piece)
        end = piece[-1].offset if piece else since.offset
        selected = subscription.strategy.select(piece)
        if end < page.position.offset and not namespace.cache_mode:
            subscription.fall_behind(StreamPosition(end, since.epoch))
            push_missed(session, subscription, selected)
        else:
            held = subscription.go_live(page.position)
            push_missed(session, subscription, selected)
            session.context.hub.deliver_held(subscription, held)


def _give_up(session: Session, subscription: Subscription, reason: str) -> None:
    if subscription.is_catching_up:
        subscription.end()
        session.on_gap(subscription, reason)
