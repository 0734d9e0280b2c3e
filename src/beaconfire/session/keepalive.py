"""The deadlines of one session: connect, ping and pong, expiry of the token, and upkeep of the subscriptions.

A session has one timer, which is set to its nearest deadline. A dead peer is found within ping interval + pong timeout,
whatever this side writes: only a pong counts. The first ping is sent after a random time between half and the whole
ping interval, so that clients that connected together are not pinged together.
"""

from __future__ import annotations

from typing import Any, Protocol

from beaconfire.base.errors import CONNECTION_EXPIRED, NO_PONG, STALE, DisconnectCode
from beaconfire.base.timers import Timer
from beaconfire.model.events import LimitHit
from beaconfire.session.context import SessionContext
from beaconfire.transports.traits import Pings, SessionTraits

NEVER = float("inf")


class KeptSession(Protocol):
    """The part of a session that its keepalive uses."""

    @property
    def client(self) -> str: ...

    @property
    def context(self) -> SessionContext[Any]: ...

    def has_ended(self) -> bool: ...

    @property
    def is_reading_paused(self) -> bool: ...

    def ping(self) -> None: ...

    def start_upkeep(self) -> None:
        """Ends expired subscriptions."""

    def on_transport_not_replaced(self) -> None:
        """The session has waited for another transport in vain."""

    def end(self, code: DisconnectCode, detail: str = "") -> None: ...


class Keepalive:
    """Deadlines in monotonic seconds. `NEVER` stands for no deadline."""

    __slots__ = (
        "_expire_s",
        "_ping_s",
        "_pings",
        "_pong_s",
        "_resume_s",
        "_session",
        "_stale_s",
        "_timer",
        "_upkeep_s",
    )

    def __init__(self, session: KeptSession, traits: SessionTraits) -> None:
        """Sets the deadline for connect. If the session may stay anonymous, there is none, and pings start at once."""
        self._pings = traits.pings
        self._session: KeptSession | None = session
        self._timer: Timer | None = None
        self._ping_s = self._pong_s = self._expire_s = self._upkeep_s = self._stale_s = self._resume_s = NEVER
        if traits.may_stay_anonymous:
            self._start_pings(session)
        else:
            context = session.context
            self._stale_s = context.clock.now_s() + context.options.stale_close_delay
        self._set_timer()

    def connected(self) -> None:
        """Removes the deadline for connect, and starts pings."""
        if self._session is None:
            return
        self._stale_s = NEVER
        if self._ping_s == NEVER and self._pong_s == NEVER:
            self._start_pings(self._session)
        self._set_timer()

    def _start_pings(self, session: KeptSession) -> None:
        context = session.context
        interval_s = float(context.options.ping_interval)
        if interval_s and self._pings is Pings.CLIENT:
            self._expect_ping(context)
        elif interval_s:
            self._ping_s = context.clock.now_s() + interval_s * (0.5 + context.random() / 2)

    def expire_at(self, when_s: float) -> None:
        """Ends the session at `when_s` unless the deadline is moved. The caller has added the grace period."""
        self._expire_s = when_s
        self._set_timer()

    def upkeep_by(self, when_s: float) -> None:
        """Runs upkeep at `when_s` at the latest, because a subscription expires then."""
        if when_s < self._upkeep_s:
            self._upkeep_s = when_s
            self._set_timer()

    def _expect_ping(self, context: SessionContext[Any]) -> None:
        options = context.options
        self._pong_s = context.clock.now_s() + options.ping_interval + options.pong_timeout

    def client_ping(self) -> None:
        """The client has sent a ping. The next one must come within the ping interval and the pong timeout."""
        if self._session is not None and self._pings is Pings.CLIENT and self._session.context.options.ping_interval:
            self._expect_ping(self._session.context)

    def pong(self) -> bool:
        """Removes the deadline for the pong. False if no ping waits for a pong."""
        if self._pong_s == NEVER:
            return False
        self._pong_s = NEVER
        return True

    def transport_lost(self, resume_s: float) -> None:
        """Waits `resume_s` seconds for another transport. There are no pings meanwhile."""
        if self._session is not None:
            self._ping_s = self._pong_s = NEVER
            self._resume_s = self._session.context.clock.now_s() + resume_s
            self._set_timer()

    def transport_replaced(self) -> None:
        """The session has another transport."""
        if self._session is not None:
            self._resume_s = self._ping_s = self._pong_s = NEVER  # the old transport may have taken a ping with it
            self._start_pings(self._session)
            self._set_timer()

    def cancel(self) -> None:
        """Removes all deadlines of an ended session. No deadline can be set afterwards.

        The reference to the session is dropped, so that reference counting frees both objects.
        """
        self._session = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        if self._session is None:
            return  # a command that was suspended continues after the end of its session
        nearest_s = min(self._ping_s, self._pong_s, self._expire_s, self._upkeep_s, self._stale_s, self._resume_s)
        if self._timer is not None:
            if self._timer.callback is not None and self._timer.when_s <= nearest_s:
                return  # the timer fires earlier, and is set again then
            self._timer.cancel()
        self._timer = self._session.context.timers.at(nearest_s, self._on_time) if nearest_s < NEVER else None

    def _on_time(self) -> None:
        session = self._session
        assert session is not None, "an ended session has no timer"
        context = session.context
        now_s = context.clock.now_s()
        if self._stale_s <= now_s:
            context.events.emit(LimitHit("client.stale_close_delay", session.client))
            session.end(STALE, "no connect command in time")
        elif self._resume_s <= now_s:
            session.on_transport_not_replaced()
        elif self._pong_s <= now_s and session.is_reading_paused:
            # The pong may be there already: this node does not read from the client at the moment.
            self._pong_s = now_s + context.options.pong_timeout
            self._set_timer()
        elif self._pong_s <= now_s:
            context.events.emit(LimitHit("client.pong_timeout", session.client))
            session.end(NO_PONG)
        elif self._expire_s <= now_s:
            session.end(CONNECTION_EXPIRED, "the connection's token was not refreshed in time")
        else:
            self._ping_and_upkeep(session, now_s)
            self._set_timer()

    def _ping_and_upkeep(self, session: KeptSession, now_s: float) -> None:
        options = session.context.options
        if self._ping_s <= now_s:
            self._ping_s = now_s + options.ping_interval
            if self._pings is not Pings.UNANSWERED:
                self._pong_s = now_s + options.pong_timeout
            session.ping()
        if self._upkeep_s <= now_s:
            self._upkeep_s = NEVER
            session.start_upkeep()
