"""The deadlines of one session: authenticate, be alive, be refreshed; and the upkeep of its subscriptions.

One timer per session, set to the nearest deadline. A peer is found dead within ping interval + pong timeout whatever
this side writes: only its pong counts. The first ping comes at a random moment between half and the whole interval, so
that the pings of ten thousand clients that connected together do not come together.
"""

from __future__ import annotations

from typing import Protocol

from beaconfire.base.errors import (
    BAD_PROTOCOL,
    CONNECTION_EXPIRED,
    NO_PONG,
    STALE,
    Disconnect,
    DisconnectCode,
)
from beaconfire.base.timers import Timer
from beaconfire.model.events import LimitHit
from beaconfire.node.node import Node

NEVER = float("inf")


class Watched(Protocol):
    """What the keepalive does to its session."""

    @property
    def client(self) -> str: ...

    @property
    def node(self) -> Node: ...

    def has_ended(self) -> bool: ...

    @property
    def is_reading_paused(self) -> bool: ...

    def ping(self) -> None: ...

    def start_upkeep(self) -> None:
        """Refresh presence, check positions, end expired subscriptions."""

    def end(self, code: DisconnectCode, detail: str = "") -> None: ...


class Keepalive:
    """Deadlines in monotonic seconds; NEVER where there is none."""

    __slots__ = ("_answers_pings", "_expire_s", "_ping_s", "_pong_s", "_session", "_stale_s", "_timer", "_upkeep_s")

    def __init__(self, session: Watched, may_stay_stale: bool, answers_pings: bool = True) -> None:
        """Starts the deadline for authentication, unless `may_stay_stale`; then pings start at once.

        A peer that only listens is pinged as well, so that both ends notice a connection that is gone.
        """
        self._answers_pings = answers_pings
        self._session: Watched | None = session
        self._timer: Timer | None = None
        self._ping_s = self._pong_s = self._expire_s = self._upkeep_s = self._stale_s = NEVER
        if may_stay_stale:
            self._start_pings(session)
        else:
            self._stale_s = session.node.clock.now_s() + session.node.client_options.stale_close_delay
        self._set_timer()

    def connected(self) -> None:
        """The client has authenticated."""
        if self._session is None:
            return
        self._stale_s = NEVER
        if self._ping_s == NEVER:
            self._start_pings(self._session)
        node = self._session.node
        interval_s = float(node.client_options.presence_update_interval)
        if interval_s:
            self._upkeep_s = node.clock.now_s() + interval_s * (0.75 + node.random() / 4)
        self._set_timer()

    def _start_pings(self, session: Watched) -> None:
        node = session.node
        interval_s = float(node.client_options.ping_interval)
        if interval_s:
            self._ping_s = node.clock.now_s() + interval_s * (0.5 + node.random() / 2)

    def expire_at(self, when_s: float) -> None:
        """The session ends at `when_s` unless it is refreshed; the caller has added the grace."""
        self._expire_s = when_s
        self._set_timer()

    def upkeep_by(self, when_s: float) -> None:
        """Upkeep must run at `when_s` at the latest: a subscription expires then, or positions are to be compared."""
        if when_s < self._upkeep_s:
            self._upkeep_s = when_s
            self._set_timer()

    def pong(self, solicited_only: bool) -> None:
        """The peer answered. Raises Disconnect 3501 for an application-level pong that nobody asked for."""
        if self._pong_s == NEVER and solicited_only:
            raise Disconnect(BAD_PROTOCOL, "a pong came without a ping")
        self._pong_s = NEVER

    def cancel(self) -> None:
        """The session has ended: there is no deadline any more, and none can be set.

        The session is let go of, so that the two do not keep each other for the garbage collector to find.
        """
        self._session = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        if self._session is None:
            return  # a command that was waiting for something goes on after the end
        nearest_s = min(self._ping_s, self._pong_s, self._expire_s, self._upkeep_s, self._stale_s)
        if self._timer is not None:
            if self._timer.callback is not None and self._timer.when_s <= nearest_s:
                return  # it fires earlier, and looks again then
            self._timer.cancel()
        self._timer = self._session.node.timers.at(nearest_s, self._on_time) if nearest_s < NEVER else None

    def _on_time(self) -> None:
        session = self._session
        assert session is not None, "an ended session has no timer"
        now_s = session.node.clock.now_s()
        if self._stale_s <= now_s:
            session.node.events.emit(LimitHit("client.stale_close_delay", session.client))
            session.end(STALE, "no connect command in time")
        elif self._pong_s <= now_s and session.is_reading_paused:
            self._pong_s = now_s + session.node.client_options.pong_timeout  # it may have answered: we do not listen
            self._set_timer()
        elif self._pong_s <= now_s:
            session.node.events.emit(LimitHit("client.pong_timeout", session.client))
            session.end(NO_PONG)
        elif self._expire_s <= now_s:
            session.end(CONNECTION_EXPIRED, "the connection's token was not refreshed in time")
        else:
            self._keep(session, now_s)
            self._set_timer()

    def _keep(self, session: Watched, now_s: float) -> None:
        options = session.node.client_options
        if self._ping_s <= now_s:
            self._ping_s = now_s + options.ping_interval
            if self._answers_pings:
                self._pong_s = now_s + options.pong_timeout
            session.ping()
        if self._upkeep_s <= now_s:
            self._upkeep_s = now_s + options.presence_update_interval if options.presence_update_interval else NEVER
            session.start_upkeep()
