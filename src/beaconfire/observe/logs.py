"""Sets up the logging of the process, and turns events into log lines.

A line is an `action` and fields, never a sentence that contains values; `docs/how-to/monitor.md` lists all actions.
Levels: the start and end of a session are info, commands are debug, and publications are not logged. Errors that
clients can cause at will are one line per second with a count, so that an attacker cannot fill the log.
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
from beaconfire.observe.log_lines import (
    FieldNormalizer,
    LibraryHandler,
    ProcessNamer,
    json_renderer,
    message_renderer,
    render,
    text_renderer,
)
from beaconfire.observe.log_output import LogOutput
from beaconfire.observe.options import LogOptions
from beaconfire.observe.redaction import Redactor

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_SERVER_ERRORS: Final = frozenset({errors.INTERNAL.code, errors.SERVER_ERROR.code})
_NORMAL_ENDS: Final = frozenset(
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
_APPLICATION_CODES_FROM: Final = 4000
"""From here on, disconnect codes belong to the application, so such a disconnect is intended."""

_outputs: list[LogOutput] = []
"""The configured output; empty if logging is not configured."""

FLUSH_TIMEOUT_S: Final = 0.5
"""How long the end of the process waits for the reader of the log."""


def configure(
    options: LogOptions,
    stream: TextIO | None = None,
    secrets: Iterable[str] = (),
    clock: Clock | None = None,
    process: str = "",
) -> None:
    """Sends all log lines of this process, of the server and of libraries, to `stream` (None: standard error).

    Call this before the first line, and only in a process that runs nothing but the server: it sets structlog's
    defaults and one handler on the root logger; `reset` undoes both. Inside another application do not call it: lines
    then go where that application sends its structlog lines. `secrets` are strings that must never appear in a line,
    such as the API keys. `process` is the name of this process if several ones write to the same log; each line then
    contains it.
    """
    reset()
    clock = clock or SystemClock()
    output = LogOutput(stream, lambda lost: render(processors, "warning", {"event": "log_lines_lost", "lines": lost}))
    _outputs.append(output)
    terminal = output.is_terminal()
    text = options.format == "text" or (options.format == "auto" and terminal)
    processors: list[Processor] = [
        *([ProcessNamer(process)] if process else []),
        FieldNormalizer(Redactor(secrets), clock),
        *(text_renderer(colours=terminal and not os.environ.get("NO_COLOR")) if text else (json_renderer(),)),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[options.level]),
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,
    )
    # At debug level libraries log every frame with its payload, and at info level what the server logs itself.
    level = logging.INFO if options.level == "debug" else max(_LEVELS[options.level], logging.WARNING)
    root = logging.getLogger()
    handler = LibraryHandler(output, processors, root.level, clock)
    handler.setLevel(level)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)


def reset() -> None:
    """Undoes `configure`. Does nothing if logging is not configured."""
    _outputs.clear()
    root = logging.getLogger()
    for handler in [each for each in root.handlers if isinstance(each, LibraryHandler)]:
        root.removeHandler(handler)
        root.setLevel(handler.previous_level)
        logging.captureWarnings(False)
        structlog.reset_defaults()


def host_logger(options: LogOptions, secrets: Iterable[str] = (), clock: Clock | None = None) -> FilteringBoundLogger:
    """A logger inside another application, whose logging this function does not change.

    If that application has configured structlog, its lines go there. Otherwise they go to the logger `beaconfire` of
    the standard library: as JSON with `log.format = "json"`, else as `action status key=value …`, without time and
    level, which the host's formatter adds. `secrets` as in `configure`.
    """
    if structlog.is_configured():
        return get_logger()
    normalizer = FieldNormalizer(Redactor(secrets), clock or SystemClock())
    renderers = (json_renderer(),) if options.format == "json" else message_renderer()
    logger: FilteringBoundLogger = structlog.wrap_logger(
        logging.getLogger("beaconfire"),
        processors=[structlog.stdlib.filter_by_level, normalizer, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[options.level]),
        cache_logger_on_first_use=False,
    )
    return logger


def get_logger(**fields: Any) -> FilteringBoundLogger:
    """A logger: `get_logger().info("node_started", engine="memory")`. Each of its lines contains `fields`.

    A line may set `status`, which otherwise follows from the level, and `duration_ms`.
    """
    logger: FilteringBoundLogger = structlog.get_logger(**fields)
    return logger


class LogSink:
    """Writes a line for each event that is logged. Create it after `configure`, because it keeps its logger."""

    def __init__(self, logger: FilteringBoundLogger | None = None, clock: Clock | None = None) -> None:
        self._log: FilteringBoundLogger = (logger or get_logger()).bind()
        self._clock = clock or SystemClock()
        self._limiter = _RepeatLimiter()
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
            events.WorkDropped: self._work_dropped,
            events.EngineStateChanged: self._engine_state_changed,
            events.HubConnectionEnded: self._hub_connection_ended,
            events.StorageOpened: self._storage_opened,
            events.EngineConnected: self._engine_connected,
            events.MigrationProgressed: self._migration_progressed,
            events.MigrationFailed: self._migration_failed,
            events.MigrationReadChanged: self._migration_read_changed,
            events.TokensRevoked: self._tokens_revoked,
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
        if self._limiter.waiting:
            self._limiter.write_due(self._clock.now_s())
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def handler(self, kind: type[events.Event]) -> Callable[[Any], None] | None:
        """Implements `events.SelectiveSink`: None for events that are not logged at the configured level."""
        return self.emit if kind in self._handlers else None

    def tick(self) -> None:
        """Writes held-back lines that are due, and buffered output. The owner calls this regularly."""
        if self._limiter.waiting:
            self._limiter.write_due(self._clock.now_s())
        for output in _outputs:
            output.flush()

    def flush(self) -> None:
        """Writes all held-back lines. Call this at the end, after the last event."""
        self._limiter.write_all()
        for output in _outputs:
            output.flush(FLUSH_TIMEOUT_S)

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
        normal = event.code in _NORMAL_ENDS or event.code >= _APPLICATION_CODES_FROM
        self._log.log(
            logging.WARNING if event.code in _SERVER_ERRORS else logging.INFO,
            "session_ended",
            status="ok" if normal else "error",
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
            self._log_failure("command", event.method, event.error, fields)

    def _api_call_handled(self, event: events.ApiCallHandled) -> None:
        if event.error == 0 and not self._debug:
            return
        fields: dict[str, Any] = {"duration_ms": _milliseconds(event.duration_s), "method": event.method}
        if event.error == 0:
            self._log.debug("api_call", **fields)
        else:
            self._log_failure("api_call", event.method, event.error, fields)

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
            self._log_limited(("recovery", event.namespace), logging.INFO, "recovery", status="error", **fields)

    # --- limits and errors ---

    def _limit_hit(self, event: events.LimitHit) -> None:
        self._log_limited(
            ("limit_hit", event.limit), logging.WARNING, "limit_hit", limit=event.limit, client=event.client
        )

    def _handshake_refused(self, event: events.HandshakeRefused) -> None:
        self._log_limited(
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

    def _work_dropped(self, event: events.WorkDropped) -> None:
        self._log_limited(
            ("work_dropped", event.work),
            logging.WARNING,
            "work_dropped",
            status="error",
            work=event.work,
            dropped=event.count,
            **_detail(event.detail),
        )

    def _engine_state_changed(self, event: events.EngineStateChanged) -> None:
        if event.up:
            self._log.info("engine_state_changed", engine=event.engine)
        else:
            self._log.warning("engine_state_changed", status="error", engine=event.engine, detail=event.detail)

    def _hub_connection_ended(self, event: events.HubConnectionEnded) -> None:
        if event.reason:
            self._log_limited(
                ("hub_connection_ended", event.reason),
                logging.WARNING,
                "hub_connection_ended",
                status="error",
                node=event.node,
                detail=event.reason,
            )
        else:
            self._log.info("hub_connection_ended", node=event.node)

    def _storage_opened(self, event: events.StorageOpened) -> None:
        self._log.info(
            "storage_opened",
            path=event.path,
            library=event.library,
            is_copy=event.is_copy,
            **_detail(event.advice),
        )

    def _engine_connected(self, event: events.EngineConnected) -> None:
        fields = {"engine": event.engine, "server": event.server, "address": event.address}
        if event.advice:
            self._log.warning("engine_connected", status="warning", **fields, detail=event.advice)
        else:
            self._log.info("engine_connected", **fields)

    def _migration_progressed(self, event: events.MigrationProgressed) -> None:
        if event.different:
            self._log.warning(
                "migration_progressed",
                status="error",
                step=event.step,
                channels=event.channels,
                different=event.different,
            )
        else:
            self._log.info("migration_progressed", step=event.step, channels=event.channels)

    def _migration_failed(self, event: events.MigrationFailed) -> None:
        self._log_limited(
            ("migration_failed",), logging.WARNING, "migration_failed", status="error", **_detail(event.detail)
        )

    def _migration_read_changed(self, event: events.MigrationReadChanged) -> None:
        self._log.info("migration_read_changed", percent=event.percent)

    def _tokens_revoked(self, event: events.TokensRevoked) -> None:
        self._log.info(
            "tokens_revoked",
            revoked="user" if event.user else "token_id",
            user=event.user,
            channel=event.channel,
            expire_at=int(event.expire_at_unix_s),
        )

    def _internal_error(self, event: events.InternalError) -> None:
        self._log_limited(
            ("internal_error", event.where),
            logging.ERROR,
            "internal_error",
            where=event.where,
            exception=event.error,
        )

    def _drain_advanced(self, event: events.DrainAdvanced) -> None:
        self._log.info("drain", phase=event.phase, remaining=event.remaining)

    # --- helpers ---

    def _log_failure(self, action: str, method: str, code: int, fields: dict[str, Any]) -> None:
        level = logging.WARNING if code in _SERVER_ERRORS else logging.INFO
        self._log_limited((action, method, code), level, action, status="error", code=code, **fields)

    def _log_limited(self, key: Hashable, level: int, action: str, **fields: Any) -> None:
        write = self._log.log
        self._limiter.add(key, lambda count: write(level, action, count=count, **fields), self._clock.now_s())


class _RepeatLimiter:
    """Limits repeated lines to one per second and key. Each line has the count since the previous one.

    The first line of a key is written immediately. After `write_all`, the sum of the counts is the number of calls.
    """

    def __init__(self) -> None:
        self.waiting = False
        """Whether `write_due` has anything to do."""
        self._due_s = 0.0
        self._held: dict[Hashable, tuple[int, Callable[[int], object]]] = {}

    def add(self, key: Hashable, write: Callable[[int], object], now_s: float) -> None:
        """`write` gets the count. Of the calls that are held back for one key, the latest `write` is used."""
        if not self.waiting:
            self.waiting = True
            self._due_s = now_s + 1
        held = self._held.get(key)
        if held is None:
            self._held[key] = (0, write)
            write(1)
        else:
            self._held[key] = (held[0] + 1, write)

    def write_due(self, now_s: float) -> None:
        """Calls `write_all` if the second is over."""
        if now_s >= self._due_s:
            self.write_all()
            self._due_s = now_s + 1

    def write_all(self) -> None:
        """Writes the lines that are held back, and forgets keys without any."""
        held, self._held = self._held, {}
        for key, (count, write) in held.items():
            if count:
                write(count)
                self._held[key] = (0, write)
        self.waiting = bool(self._held)


def _milliseconds(duration_s: float) -> float:
    return round(duration_s * 1000, 3)


def _detail(detail: str) -> dict[str, str]:
    return {"detail": detail} if detail else {}
