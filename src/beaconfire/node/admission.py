"""The connection limits of this node, checked before a connection is accepted."""

from __future__ import annotations

from collections.abc import Callable

from beaconfire.base.clock import Clock
from beaconfire.model.events import EventSink, LimitHit
from beaconfire.session.options import ClientOptions
from beaconfire.transports.port import ErrorResponse

OPEN_FILES_SHARE = 0.9
"""The share of the open-file limit for connections, if no limit is set. HTTP requests and files use the rest."""

OPEN_FILES_MAX = 1_048_576
"""The limit on a system without one: the maximum of a process on Linux by default."""

_DRAINING = ErrorResponse(503, "draining", "this node is shutting down: try again")
_FULL = ErrorResponse(503, "limit", "client.connection_limit is reached: try again later")
_TOO_FAST = ErrorResponse(503, "rate", "client.connection_rate_limit is reached: try again later")


def open_files_limit() -> int:
    """File descriptors this process may have open."""
    try:
        import resource  # POSIX only
    except ImportError:
        return OPEN_FILES_MAX
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OPEN_FILES_MAX if limit == resource.RLIM_INFINITY else limit


def raise_open_files_limit() -> None:
    """Raises the soft limit to the hard limit, because each connection needs a file descriptor."""
    try:
        import resource  # POSIX only
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Admission:
    """Refuses connections beyond the limits. Connections per second are counted in windows of one second."""

    def __init__(
        self,
        options: ClientOptions,
        count_connections: Callable[[], int],
        clock: Clock,
        events: EventSink,
        share: int = 1,
    ) -> None:
        """`share` is the number of worker processes that divide the configured limits: each takes an equal part,
        rounded up. The open-file limit is that of each process, so it is not divided."""
        limit, rate = options.connection_limit, options.connection_rate_limit
        self.connection_limit = _part(limit, share) or int(open_files_limit() * OPEN_FILES_SHARE)
        self._rate_limit = _part(rate, share)
        self._count_connections = count_connections
        self._clock = clock
        self._events = events
        self._window_s = 0.0
        self._admitted = 0
        self.draining = False

    def admit(self) -> ErrorResponse | None:
        """Returns the refusal of a connection, or None to accept it, which counts it."""
        if self.draining:
            return _DRAINING
        if self._count_connections() >= self.connection_limit:
            self._events.emit(LimitHit("client.connection_limit", ""))
            return _FULL
        if self._rate_limit:
            now_s = self._clock.now_s()
            if now_s - self._window_s >= 1.0:
                self._window_s = now_s
                self._admitted = 0
            if self._admitted >= self._rate_limit:
                self._events.emit(LimitHit("client.connection_rate_limit", ""))
                return _TOO_FAST
            self._admitted += 1
        return None


def _part(limit: int, share: int) -> int:
    """The part of one of `share` processes, rounded up. 0 stays 0, which is no configured limit."""
    return -(-limit // share)
