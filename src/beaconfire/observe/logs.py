"""Events turned into log lines, and how the process's logging is set up.

A line is an `action` and fields, never a sentence with values in it; `docs/how-to/monitor.md` lists them. Levels: what
happens to a session is info; what it does, command by command, is debug, and what happens per publication is not
logged at all. Trouble that clients can cause at will is one line a second with a count, because a log that an attacker
can fill is a weapon.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, TextIO

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from beaconfire.base import errors
from beaconfire.base.clock import Clock, SystemClock
from beaconfire.model import events
from beaconfire.observe.log_lines import JsonRenderer, LibraryHandler, Shape, TextRenderer, render
from beaconfire.observe.log_output import Output
from beaconfire.observe.options import LogOptions
from beaconfire.observe.redaction import Redactor

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_SERVER_FAULTS: Final = frozenset({errors.INTERNAL.code, errors.SERVER_ERROR.code})
_GOOD_ENDS: Final = frozenset(
    code.code
    for code in (
        errors.CONNECTION_CLOSED,
        errors.SHUTDOWN,
        errors.CONNECTION_EXPIRED,
        errors.SUBSCRIPTION_EXPIRED,
        errors.FORCE_RECONNECT,
        errors.FORCE_DISCONNECT,
    )
)
_OWN_CODES_FROM: Final = 4000
"""Disconnect codes from here on are the application's own, and so intended."""


_outputs: list[Output] = []
"""The output that is configured, if any."""

LAST_WORDS_S: Final = 0.5
"""How long the end of the process waits for whoever reads the log."""


def configure(
    options: LogOptions, stream: TextIO | None = None, secrets: Iterable[str] = (), clock: Clock | None = None
) -> None:
    """Sends all logging of this process, ours and that of libraries, to `stream` (None: standard error).

    For a process that is ours alone, and before its first line. It sets structlog's defaults and one handler on the
    root logger; `reset` takes both back. Inside someone else's application leave it be: lines then go wherever that
    application sends structlog's. `secrets` are strings that must never appear, such as the API keys.
    """
    reset()
    clock = clock or SystemClock()
    output = Output(stream, lambda lost: render(processors, "warning", {"event": "log_lines_lost", "lines": lost}))
    _outputs.append(output)
    terminal = output.is_terminal()
    text = options.format == "text" or (options.format == "auto" and terminal)
    processors: list[Processor] = [
        Shape(Redactor(secrets), clock),
        TextRenderer(colours=terminal and not os.environ.get("NO_COLOR")) if text else JsonRenderer(),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[options.level]),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,
    )
    # Libraries describe every frame at debug level, payload and all, and their info is chatter about our own actions.
    level = logging.INFO if options.level == "debug" else max(_LEVELS[options.level], logging.WARNING)
    root = logging.getLogger()
    handler = LibraryHandler(output, processors, root.level, clock)
    handler.setLevel(level)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)


def reset() -> None:
    """Undoes `configure`. Does nothing if there is nothing to undo."""
    _outputs.clear()
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, LibraryHandler)]:
        root.removeHandler(handler)
        root.setLevel(handler.previous_level)
        logging.captureWarnings(False)
        structlog.reset_defaults()


def get_logger(**fields: Any) -> FilteringBoundLogger:
    """A logger: `get_logger().info("node_started", engine="memory")`. `fields` go with each of its lines.

    Lines may carry `status` (else it follows from the level) and `duration_ms`.
    """
    logger: FilteringBoundLogger = structlog.get_logger(**fields)
    return logger


class LogSink:
    """Writes a line for every event worth one. Create it after `configure`: it keeps the logger it finds then."""

    def __init__(self, logger: FilteringBoundLogger | None = None, clock: Clock | None = None) -> None:
        self._log: FilteringBoundLogger = (logger or get_logger()).bind()
        self._clock = clock or SystemClock()
        self._repeated = _Repeated()
        # Any: each handler takes the one event type it is registered for.
        self._handlers: dict[type, Callable[[Any], None]] = {
            events.SessionConnected: self._session_connected,
            events.SessionEnded: self._session_ended,
            events.CommandHandled: self._command_handled,
            events.ApiCallHandled: self._api_call_handled,
            events.RecoveryFinished: self._recovery_finished,
            events.LimitHit: self._limit_hit,
            events.HandshakeRefused: self._handshake_refused,
            events.DrainAdvanced: self._drain_advanced,
            events.TokenKeysFetched: self._token_keys_fetched,
            events.InternalError: self._internal_error,
        }
        self._debug = self._log.is_enabled_for(logging.DEBUG)
        if self._debug:
            self._handlers |= {
                events.ConnectionOpened: self._connection_opened,
                events.Subscribed: self._subscribed,
                events.Unsubscribed: self._unsubscribed,
            }

    def emit(self, event: events.Event) -> None:
        if self._repeated.waiting:
            self._repeated.write_due(self._clock.now_s())
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def handler(self, kind: type[events.Event]) -> Callable[[Any], None] | None:
        """As `events.SelectiveSink`; at this level some are not worth a line."""
        return self.emit if kind in self._handlers else None

    def tick(self) -> None:
        """Writes what was held back and is due, and what its reader had no room for. To be called now and then."""
        if self._repeated.waiting:
            self._repeated.write_due(self._clock.now_s())
        for output in _outputs:
            output.catch_up()

    def flush(self) -> None:
        """Writes the counts of what was held back in the last second. For the end, when no more events will come."""
        self._repeated.write_all()
        for output in _outputs:
            output.catch_up(LAST_WORDS_S)

    # --- connections and sessions ---

    def _connection_opened(self, event: events.ConnectionOpened) -> None:
        self._log.debug("connection_opened", client=event.client, transport=event.transport, protocol=event.protocol)

    def _session_connected(self, event: events.SessionConnected) -> None:
        self._log.info(
            "session_connected",
            client=event.client,
            user=event.user,
            transport=event.transport,
            protocol=event.protocol,
            name=event.name,
            version=event.version,
        )

    def _session_ended(self, event: events.SessionEnded) -> None:
        good = event.code in _GOOD_ENDS or event.code >= _OWN_CODES_FROM
        self._log.log(
            logging.WARNING if event.code in _SERVER_FAULTS else logging.INFO,
            "session_ended",
            status="ok" if good else "error",
            duration_ms=_milliseconds(event.duration_s),
            code=event.code,
            reason=event.reason,
            client=event.client,
            user=event.user,
            transport=event.transport,
            protocol=event.protocol,
            **_detail(event.detail),
        )

    # --- commands, API calls and channels ---

    def _command_handled(self, event: events.CommandHandled) -> None:
        if event.error == 0 and not self._debug:
            return
        fields = {
            "duration_ms": _milliseconds(event.duration_s),
            "method": event.method,
            "namespace": event.namespace,
            "client": event.client,
            "user": event.user,
        }
        if event.error == 0:
            self._log.debug("command", **fields)
        else:
            fields |= _detail(event.detail)
            self._failed("command", event.method, event.error, fields)

    def _api_call_handled(self, event: events.ApiCallHandled) -> None:
        if event.error == 0 and not self._debug:
            return
        fields: dict[str, Any] = {"duration_ms": _milliseconds(event.duration_s), "method": event.method}
        if event.error == 0:
            self._log.debug("api_call", **fields)
        else:
            self._failed("api_call", event.method, event.error, fields)

    def _subscribed(self, event: events.Subscribed) -> None:
        self._log.debug("subscribed", client=event.client, channel=event.channel, namespace=event.namespace)

    def _unsubscribed(self, event: events.Unsubscribed) -> None:
        self._log.debug(
            "unsubscribed", code=event.code, client=event.client, channel=event.channel, namespace=event.namespace
        )

    def _recovery_finished(self, event: events.RecoveryFinished) -> None:
        fields = {"channel": event.channel, "namespace": event.namespace, "publications": event.publications}
        if event.recovered:
            self._log.debug("recovery", **fields)
        else:
            self._once_a_second(("recovery", event.namespace), logging.INFO, "recovery", status="error", **fields)

    # --- trouble ---

    def _limit_hit(self, event: events.LimitHit) -> None:
        self._once_a_second(
            ("limit_hit", event.limit), logging.WARNING, "limit_hit", limit=event.limit, client=event.client
        )

    def _handshake_refused(self, event: events.HandshakeRefused) -> None:
        self._once_a_second(
            ("handshake_refused", event.reason),
            logging.WARNING,
            "handshake_refused",
            status="error",
            code=event.status,
            reason=event.reason,
            path=event.path,
        )

    def _token_keys_fetched(self, event: events.TokenKeysFetched) -> None:
        if event.error:
            self._log.warning("token_keys_fetched", status="error", detail=event.error)
        else:
            self._log.info("token_keys_fetched", keys=event.keys)

    def _internal_error(self, event: events.InternalError) -> None:
        self._once_a_second(
            ("internal_error", event.where),
            logging.ERROR,
            "internal_error",
            where=event.where,
            exception=event.error,
        )

    def _drain_advanced(self, event: events.DrainAdvanced) -> None:
        self._log.info("drain", phase=event.phase, remaining=event.remaining)

    # --- details ---

    def _failed(self, action: str, method: str, code: int, fields: dict[str, Any]) -> None:
        level = logging.WARNING if code in _SERVER_FAULTS else logging.INFO
        self._once_a_second((action, method, code), level, action, status="error", code=code, **fields)

    def _once_a_second(self, key: Hashable, level: int, action: str, **fields: Any) -> None:
        write = self._log.log
        self._repeated.add(key, lambda count: write(level, action, count=count, **fields), self._clock.now_s())


class _Repeated:
    """Lines that say the same: at most one a second per key, each with the number of times since the one before.

    The first of a kind is written at once. The sum of the counts is the number of times, once all is flushed.
    """

    def __init__(self) -> None:
        self.waiting = False
        self._due_s = 0.0
        self._kinds: dict[Hashable, tuple[int, Callable[[int], object]]] = {}

    def add(self, key: Hashable, write: Callable[[int], object], now_s: float) -> None:
        """`write` takes the count. Of several with one key, the latest is the one that will be written."""
        if not self.waiting:
            self.waiting = True
            self._due_s = now_s + 1
        held = self._kinds.get(key)
        if held is None:
            self._kinds[key] = (0, write)
            write(1)
        else:
            self._kinds[key] = (held[0] + 1, write)

    def write_due(self, now_s: float) -> None:
        """`write_all`, once the second is over."""
        if now_s >= self._due_s:
            self.write_all()
            self._due_s = now_s + 1

    def write_all(self) -> None:
        """Writes what was held back, and forgets the kinds of which nothing was."""
        kinds, self._kinds = self._kinds, {}
        for key, (count, write) in kinds.items():
            if count:
                write(count)
                self._kinds[key] = (0, write)
        self.waiting = bool(self._kinds)


def _milliseconds(duration_s: float) -> float:
    return round(duration_s * 1000, 3)


def _detail(detail: str) -> dict[str, str]:
    return {"detail": detail} if detail else {}
