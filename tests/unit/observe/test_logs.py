"""Configuration, the level and the fields of each event, limits of repeated lines, and protection of secrets."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
import structlog

from beaconfire.base import errors
from beaconfire.base.clock import ManualClock
from beaconfire.model import events
from beaconfire.observe import logs
from beaconfire.observe.logs import LogSink, get_logger
from tests.unit.observe.log_capture import API_KEY, Level, configured, lines

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2lnbmF0dXJlLW9mLXRoaXM"


def emitted(*emitted_events: events.Event, level: Level = "info") -> list[dict[str, Any]]:
    """The lines that a sink writes for the events, without timestamps."""
    stream = configured(level)
    sink = LogSink(clock=ManualClock())
    for event in emitted_events:
        sink.emit(event)
    found = lines(stream)
    for line in found:
        del line["timestamp"]
    return found


def ended(code: errors.DisconnectCode, detail: str = "") -> events.SessionEnded:
    return events.SessionEnded("c1", "ann", "websocket", "plain", code.code, code.reason, detail, 1.23456)


def command(method: str = "publish", error: int = 0, detail: str = "") -> events.CommandHandled:
    return events.CommandHandled("c1", "ann", method, "chat", 0.00042, error, detail)


# --- configuration ---


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_lines_below_the_level_are_not_written(level: Level, count: int) -> None:
    """The configured level is the lowest that is written."""
    stream = configured(level)
    logger = get_logger()
    for write in (logger.debug, logger.info, logger.warning, logger.error):
        write("x")
    assert len(lines(stream)) == count


def test_configure_replaces_and_reset_restores() -> None:
    """After a second `configure` each line is written once; `reset` restores all global state."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    first, second = configured(), configured("error")
    logging.getLogger("library").error("x")
    get_logger().error("x")
    assert first.getvalue() == ""
    assert len(lines(second)) == 2
    logs.reset()
    assert (root.level, root.handlers) == (level, handlers)
    assert not structlog.is_configured()


# --- events ---


def test_session_lines() -> None:
    """The start and the end of a session are info, with the client, its connection, and the reason of the end."""
    assert emitted(
        events.SessionConnected("c1", "ann", "websocket", "centrifuge-json", "js", "5.7.1"),
        ended(errors.CONNECTION_CLOSED),
        ended(errors.SLOW, "client.queue_max_size exceeded"),
    ) == [
        {
            "level": "info",
            "action": "session_connected",
            "status": "ok",
            "client": "c1",
            "user": "ann",
            "transport": "websocket",
            "protocol": "centrifuge-json",
            "name": "js",
            "version": "5.7.1",
        },
        {
            "level": "info",
            "action": "session_ended",
            "status": "ok",
            "duration_ms": 1234.56,
            "code": 3000,
            "reason": "connection closed",
            "client": "c1",
            "user": "ann",
            "transport": "websocket",
            "protocol": "plain",
        },
        {
            "level": "info",
            "action": "session_ended",
            "status": "error",
            "duration_ms": 1234.56,
            "code": 3008,
            "reason": "slow",
            "client": "c1",
            "user": "ann",
            "transport": "websocket",
            "protocol": "plain",
            "detail": "client.queue_max_size exceeded",
        },
    ]


@pytest.mark.parametrize(
    ("code", "level", "status"),
    [
        (errors.SHUTDOWN, "info", "ok"),
        (errors.FORCE_DISCONNECT, "info", "ok"),
        (errors.CONNECTION_EXPIRED, "info", "ok"),
        (errors.DisconnectCode(4321, "own", "The application's own."), "info", "ok"),
        (errors.NO_PONG, "info", "error"),
        (errors.INVALID_TOKEN, "info", "error"),
        (errors.SERVER_ERROR, "warning", "error"),
    ],
)
def test_status_and_level_of_a_session_end_follow_from_the_code(
    code: errors.DisconnectCode, level: str, status: str
) -> None:
    """Intended ends are ok; ends that the server caused by an error are warnings."""
    line = emitted(ended(code))[0]
    assert (line["level"], line["status"]) == (level, status)


def test_events_per_message_are_not_logged_at_info() -> None:
    """At debug level they are logged, except deliveries."""
    busy: list[events.Event] = [
        events.ConnectionOpened("websocket", "plain", "c1"),
        command(),
        events.ApiCallHandled("publish", 0.001, 0),
        events.Subscribed("c1", "chat:1", "chat"),
        events.Unsubscribed("c1", "chat:1", "chat", 0),
        events.RecoveryFinished("chat:1", "chat", True, 3),
        events.BatchFannedOut("chat", 1, 1000, 0.001),
    ]
    assert emitted(*busy) == []
    assert [line["action"] for line in emitted(*busy, level="debug")] == [
        *("connection_opened", "command", "api_call", "subscribed", "unsubscribed", "recovery")
    ]


def test_failed_command_line() -> None:
    """An error of the client is info, an error of the server is a warning. Both have the code and the detail."""
    refused, failed = emitted(command("subscribe", 103, "channel is private"), command("rpc", 100, "RuntimeError()"))
    assert refused == {
        "level": "info",
        "action": "command",
        "status": "error",
        "duration_ms": 0.42,
        "count": 1,
        "code": 103,
        "method": "subscribe",
        "namespace": "chat",
        "client": "c1",
        "user": "ann",
        "detail": "channel is private",
    }
    assert (failed["level"], failed["code"], failed["detail"]) == ("warning", 100, "RuntimeError()")


def test_lines_of_limits_and_errors() -> None:
    """Level and fields of limits, refused upgrades, lost recoveries, key fetches, engine, hub, unexpected errors and
    drains.

    A failed call of the engine has no line of its own: the command or the change of the state has one. Nor has a healed
    channel.
    """
    found = emitted(
        events.LimitHit("client.queue_max_size", "c1"),
        events.HandshakeRefused("/ws", 403, "origin"),
        events.RecoveryFinished("chat:1", "chat", False, 0),
        events.TokenKeysFetched(2, ""),
        events.TokenKeysFetched(0, "timed out"),
        events.EngineStateChanged("redis", False, "no connection"),
        events.EngineStateChanged("redis", True, ""),
        events.StorageOpened("history.db", "sqlite 3.40.1", True, "an old version"),
        events.EngineConnected("redis", "redis 7.0.15", "10.0.0.1:6379", "Set maxmemory-policy noeviction."),
        events.EngineConnected("redis", "redis 7.0.15", "10.0.0.1:6379", ""),
        events.MigrationProgressed("copied", 100),
        events.MigrationProgressed("verified", 100, 2),
        events.MigrationFailed("the disk is full"),
        events.MigrationReadChanged(50.0),
        events.EngineCallFailed("publish", "timeout"),
        events.TokensRevoked("ann", "chat", 1_700_000_000.5),
        events.TokensRevoked("", "", 1_700_000_000.0),
        events.RevocationApplied("session"),
        events.ChannelHealed("chat", False, 0),
        events.WorkDropped("announcements", 3, "channel 'news'"),
        events.HubConnectionEnded("node-1", "a frame of 9 bytes, more than 8"),
        events.HubConnectionEnded("node-1", ""),
        events.InternalError("hub", "Traceback …\nRuntimeError: boom"),
        events.DrainAdvanced("closing", 12),
        events.ApiCallHandled("publish", 0.001, 102),
    )
    assert found == [
        {
            **{"level": "warning", "action": "limit_hit", "status": "warning"},
            **{"count": 1, "limit": "client.queue_max_size", "client": "c1"},
        },
        {
            **{"level": "warning", "action": "handshake_refused", "status": "error"},
            **{"count": 1, "code": 403, "reason": "origin", "path": "/ws"},
        },
        {
            **{"level": "info", "action": "recovery", "status": "error"},
            **{"count": 1, "channel": "chat:1", "namespace": "chat", "publications": 0},
        },
        {"level": "info", "action": "token_keys_fetched", "status": "ok", "keys": 2},
        {"level": "warning", "action": "token_keys_fetched", "status": "error", "detail": "timed out"},
        {
            **{"level": "warning", "action": "engine_state_changed", "status": "error"},
            **{"engine": "redis", "detail": "no connection"},
        },
        {"level": "info", "action": "engine_state_changed", "status": "ok", "engine": "redis"},
        {
            **{"level": "info", "action": "storage_opened", "status": "ok", "path": "history.db"},
            **{"library": "sqlite 3.40.1", "is_copy": True, "detail": "an old version"},
        },
        {
            **{"level": "warning", "action": "engine_connected", "status": "warning", "engine": "redis"},
            **{"server": "redis 7.0.15", "address": "10.0.0.1:6379", "detail": "Set maxmemory-policy noeviction."},
        },
        {
            **{"level": "info", "action": "engine_connected", "status": "ok", "engine": "redis"},
            **{"server": "redis 7.0.15", "address": "10.0.0.1:6379"},
        },
        {"level": "info", "action": "migration_progressed", "status": "ok", "step": "copied", "channels": 100},
        {
            **{"level": "warning", "action": "migration_progressed", "status": "error"},
            **{"step": "verified", "channels": 100, "different": 2},
        },
        {
            **{"level": "warning", "action": "migration_failed", "status": "error"},
            **{"count": 1, "detail": "the disk is full"},
        },
        {"level": "info", "action": "migration_read_changed", "status": "ok", "percent": 50.0},
        {
            **{"level": "info", "action": "tokens_revoked", "status": "ok", "revoked": "user"},
            **{"user": "ann", "channel": "chat", "expire_at": 1_700_000_000},
        },
        {
            **{"level": "info", "action": "tokens_revoked", "status": "ok", "revoked": "token_id"},
            **{"user": "", "channel": "", "expire_at": 1_700_000_000},
        },
        {
            **{"level": "warning", "action": "work_dropped", "status": "error"},
            **{"count": 1, "work": "announcements", "dropped": 3, "detail": "channel 'news'"},
        },
        {
            **{"level": "warning", "action": "hub_connection_ended", "status": "error"},
            **{"count": 1, "node": "node-1", "detail": "a frame of 9 bytes, more than 8"},
        },
        {"level": "info", "action": "hub_connection_ended", "status": "ok", "node": "node-1"},
        {
            **{"level": "error", "action": "internal_error", "status": "error"},
            **{"count": 1, "where": "hub", "exception": "Traceback …\nRuntimeError: boom"},
        },
        {"level": "info", "action": "drain", "status": "ok", "phase": "closing", "remaining": 12},
        {
            **{"level": "info", "action": "api_call", "status": "error", "duration_ms": 1.0},
            **{"count": 1, "code": 102, "method": "publish"},
        },
    ]


# --- repeated lines ---


def test_repeated_lines_are_limited_to_one_per_second() -> None:
    """The first is written immediately, and the counts add up to all of them."""
    stream = configured()
    clock = ManualClock()
    sink = LogSink(clock=clock)
    for _ in range(10):
        for number in range(1000):
            sink.emit(events.LimitHit("client.message_rate_limit", f"c{number}"))
            clock.advance(0.001)
    sink.flush()
    counts = [line["count"] for line in lines(stream)]
    assert counts[0] == 1
    assert sum(counts) == 10_000
    assert len(counts) <= 12


def test_different_lines_are_limited_separately() -> None:
    """Each limit, and each pair of method and code, is limited separately."""
    assert [line.get("limit") or (line["method"], line["code"]) for line in emitted(
        events.LimitHit("client.queue_max_size", "c1"),
        events.LimitHit("client.queue_max_size", "c1"),
        events.LimitHit("client.channel_limit", "c1"),
        command("subscribe", 103),
        command("subscribe", 103),
        command("subscribe", 109),
        command("publish", 103),
    )] == [
        *("client.queue_max_size", "client.channel_limit", ("subscribe", 103), ("subscribe", 109), ("publish", 103))
    ]  # fmt: skip


def test_held_back_lines_are_written_with_the_next_event() -> None:
    """After the second, any event writes the held-back count. Without repetition the key is forgotten."""
    stream = configured()
    clock = ManualClock()
    sink = LogSink(clock=clock)
    for client in ("c1", "c2", "c3"):
        sink.emit(events.LimitHit("client.queue_max_size", client))
    clock.advance(0.9)
    sink.emit(command())
    assert [line["count"] for line in lines(stream)] == [1]
    clock.advance(0.2)
    sink.emit(command())
    assert [(line["count"], line["client"]) for line in lines(stream)] == [(1, "c1"), (2, "c3")]
    for _ in range(2):
        clock.advance(1.1)
        sink.emit(command())
    sink.emit(events.LimitHit("client.queue_max_size", "c4"))
    assert [(line["count"], line["client"]) for line in lines(stream)] == [(1, "c1"), (2, "c3"), (1, "c4")]


def test_repeated_lines_below_the_level_are_not_written() -> None:
    """Neither the first line of a key nor the count of the others."""
    stream = configured("error")
    sink = LogSink(clock=ManualClock())
    for _ in range(3):
        sink.emit(events.LimitHit("client.queue_max_size", "c1"))
    sink.flush()
    assert stream.getvalue() == ""


# --- secrets ---


def test_secrets_never_appear_in_any_line() -> None:
    """Token and API key in every text of every event, at every level, in lines of the server and of libraries."""
    stream = configured("debug")
    sink = LogSink(clock=ManualClock())
    for secret in (TOKEN, f"/ws?token={TOKEN}&x=1", f"Authorization: apikey {API_KEY}", f"?api_key={API_KEY}", API_KEY):
        sink.emit(events.ConnectionOpened(secret, secret, secret))
        sink.emit(events.SessionConnected(secret, secret, secret, secret, secret, secret))
        sink.emit(events.SessionEnded(secret, secret, secret, secret, 3500, secret, secret, 1.0))
        sink.emit(events.CommandHandled(secret, secret, secret, secret, 0.1, 0, secret))
        sink.emit(events.CommandHandled(secret, secret, secret, secret, 0.1, 109, secret))
        sink.emit(events.ApiCallHandled(secret, 0.1, 104))
        sink.emit(events.Subscribed(secret, secret, secret))
        sink.emit(events.Unsubscribed(secret, secret, secret, 2000))
        sink.emit(events.RecoveryFinished(secret, secret, False, 0))
        sink.emit(events.LimitHit(secret, secret))
        sink.emit(events.HandshakeRefused(secret, 403, secret))
        sink.emit(events.DrainAdvanced(secret, 0))
        sink.emit(events.TokenKeysFetched(0, secret))
        sink.emit(events.InternalError(secret, f'Traceback\n  File "x", line 1\nValueError: {secret}'))
        sink.flush()
        try:
            raise ValueError(secret) from KeyError(secret)
        except ValueError as error:
            get_logger(bound=secret).exception(secret, token=secret, error=error, nested={"headers": [secret]})
            logging.getLogger("uvicorn.error").exception("failed: %s", secret)
            logging.getLogger(secret).error("%r", {"token": secret}, exc_info=error)
    text = stream.getvalue()
    assert len(lines(stream)) > 80
    assert "signature" not in text
    for secret in (TOKEN, API_KEY):
        pieces = {secret[start : start + 8] for start in range(len(secret) - 7)}
        assert not [piece for piece in pieces if piece in text]


def test_lines_of_events_have_no_payload_field() -> None:
    """Actions and fields are words of the documented format."""
    stream = configured("debug")
    sink = LogSink(clock=ManualClock())
    sink.emit(command(error=107, detail="data: expected JSON"))
    sink.emit(ended(errors.SLOW))
    for line in lines(stream):
        assert re.fullmatch(r"[a-z_]+", line["action"])
        assert not {"data", "payload", "info", "tags"} & set(line)
