"""The format of lines, as JSON and as text, for the server and for libraries; no text can forge a line."""

from __future__ import annotations

import io
import logging
import warnings

import pytest

from beaconfire.base.clock import ManualClock
from beaconfire.observe.log_lines import FIELD_LENGTH_MAX, TRACEBACK_LENGTH_MAX, LibraryHandler
from beaconfire.observe.logs import configure, get_logger
from beaconfire.observe.options import LogOptions
from tests.unit.observe.log_capture import Level, configured, lines


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# --- the line ---


def test_line_begins_with_the_fixed_fields() -> None:
    """Time in UTC, level, action, status, then the duration if there is one, then the others in the given order."""
    clock = ManualClock(unix_s=1_700_000_000.1239)
    stream = configured(clock=clock)
    get_logger(node="n1").info("engine_started", zeta=1, duration_ms=2.5, alpha="x")
    assert stream.getvalue() == (
        '{"timestamp":"2023-11-14T22:13:20.123Z","level":"info","action":"engine_started","status":"ok",'
        '"duration_ms":2.5,"node":"n1","zeta":1,"alpha":"x"}\n'
    )


def test_timestamp_always_has_milliseconds() -> None:
    """Lines sort by time as text, so the fraction is always written."""
    stream = configured(clock=ManualClock(unix_s=1_700_000_000.0))
    get_logger().info("x")
    assert lines(stream)[0]["timestamp"] == "2023-11-14T22:13:20.000Z"


def test_status_follows_from_the_level() -> None:
    """Without `status`, the status follows from the level."""
    stream = configured("debug")
    logger = get_logger()
    for write in (logger.debug, logger.info, logger.warning, logger.error, logger.critical):
        write("x")
    logger.warning("x", status="ok")
    assert [(line["level"], line["status"]) for line in lines(stream)] == [
        ("debug", "ok"),
        ("info", "ok"),
        ("warning", "warning"),
        ("error", "error"),
        ("error", "error"),
        ("warning", "ok"),
    ]


def test_exception_is_shown_with_its_traceback() -> None:
    """`exc_info` becomes one field that ends with the error."""
    stream = configured()
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        get_logger().exception("failed")
    line = lines(stream)[0]
    assert line["level"] == "error"
    assert line["exception"].startswith("Traceback (most recent call last):")
    assert line["exception"].endswith("RuntimeError: boom")
    assert "exc_info" not in line


def test_any_text_makes_one_valid_json_line() -> None:
    """Line ends, control characters, other scripts, invalid Unicode and infinite numbers give one valid JSON line."""
    stream = configured()
    values = [
        "a\nb",
        "\x1b[31m\x9b",
        "烽火 \U0001f525",
        "\ud800",
        "\u2028\u202e",
        '"}\n{"level":"error"}',
        float("nan"),
    ]
    for value in values:
        get_logger().info("x", value=value)
    assert stream.getvalue().isascii()
    assert [line["value"] for line in lines(stream)] == [*values[:-1], "nan"]


def test_long_text_is_shortened_in_the_middle() -> None:
    """A client cannot fill the log with one field. Both ends stay, and the limit of a traceback is higher."""
    stream = configured()
    get_logger().info("x", value="a" * 100_000 + "z", exception="b" * 100_000)
    line = lines(stream)[0]
    assert len(line["value"]) < FIELD_LENGTH_MAX + 100
    assert line["value"].startswith("aaa")
    assert line["value"].endswith("az")
    assert "98001 characters left out" in line["value"]
    assert TRACEBACK_LENGTH_MAX < len(line["exception"]) < TRACEBACK_LENGTH_MAX + 100


# --- text format ---


def test_auto_is_text_on_a_terminal_and_json_elsewhere() -> None:
    """People read terminals, programs read everything else."""
    for stream, is_json in ((Terminal(), False), (io.StringIO(), True)):
        configure(LogOptions(), stream)
        get_logger().info("x")
        assert stream.getvalue().startswith("{") == is_json


def test_format_overrides_the_terminal() -> None:
    """A configured format is used for every stream. Colours are used only on terminals."""
    stream: io.StringIO = Terminal()
    configure(LogOptions(format="json"), stream)
    get_logger().info("x")
    assert lines(stream)[0]["action"] == "x"
    stream = io.StringIO()
    configure(LogOptions(format="text"), stream, clock=ManualClock())
    get_logger().info("node_started", engine="memory", note="two words", empty="", keys=["a"], n=1)
    assert stream.getvalue() == (
        "2023-11-14T22:13:20.000Z info    node_started       ok      "
        "engine=memory note='two words' empty='' keys=[\"a\"] n=1\n"
    )


def test_colours_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the level is coloured, unless NO_COLOR is set."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    configure(LogOptions(), stream)
    get_logger().warning("x")
    assert "\x1b[33mwarning\x1b[0m" in stream.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configure(LogOptions(), stream)
    get_logger().warning("x")
    assert "\x1b" not in stream.getvalue()


def test_text_lines_cannot_be_forged() -> None:
    """Text from clients can neither begin a line nor control the terminal, in fields and in tracebacks."""
    stream = io.StringIO()
    configure(LogOptions(format="text"), stream)
    evil = "ann\n2023-11-14T22:13:20.000Z info  admin\r\x1b[2J\x9b\u202e"
    get_logger().info("x", user=evil, seen=[evil], exception=f"Traceback\nValueError: {evil}")
    text = stream.getvalue()
    assert all(each.isprintable() or each == "\n" for each in text)
    first, *rest = text.splitlines()
    assert first.count("user=") == 1
    assert rest
    assert all(line.startswith("    ") for line in rest)


# --- libraries ---


def test_library_lines_have_the_same_format() -> None:
    """Messages of uvicorn and asyncio become lines in our format, with the traceback."""
    stream = configured()
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        logging.getLogger("uvicorn.error").exception("Exception in %s", "ASGI application")
    line = lines(stream)[0]
    assert list(line) == ["timestamp", "level", "action", "status", "count", "logger", "message", "exception"]
    assert line["action"] == "library_log"
    assert line["status"] == "error"
    assert line["logger"] == "uvicorn.error"
    assert line["message"] == "Exception in ASGI application"
    assert line["exception"].endswith("RuntimeError: boom")


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", ["i", "w", "e"]), ("info", ["w", "e"]), ("warning", ["w", "e"]), ("error", ["e"])],
)
def test_library_lines_are_written_from_warning_on(level: Level, expected: list[str]) -> None:
    """Debug messages may contain payloads and are never written, even if a library sets its logger to debug."""
    stream = configured(level)
    logger = logging.getLogger("test.library")
    logger.setLevel(logging.DEBUG)
    for write, message in ((logger.debug, "d"), (logger.info, "i"), (logger.warning, "w"), (logger.error, "e")):
        write(message)
    assert [line["message"] for line in lines(stream)] == expected


def test_uvicorn_access_log_is_not_written() -> None:
    """It contains query strings, and the server logs requests itself."""
    stream = configured("debug")
    logging.getLogger("uvicorn.access").error("GET /api/publish?api_key=x")
    assert stream.getvalue() == ""


def test_python_warnings_become_lines() -> None:
    """A Python warning is a line in our format."""
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert [(line["logger"], line["level"]) for line in lines(stream)] == [("py.warnings", "warning")]


def test_library_line_with_bad_arguments_is_still_written() -> None:
    """If the arguments of a library message cannot be formatted, the line is written with the reason."""

    class Unshowable:
        def __str__(self) -> str:
            raise RuntimeError("no")

    stream = configured()
    handler = next(each for each in logging.getLogger().handlers if isinstance(each, LibraryHandler))
    for message, argument in (("%d items", "x"), ("%s items", Unshowable())):
        handler.handle(logging.makeLogRecord({"msg": message, "args": (argument,), "levelname": "WARNING"}))
    assert [line["message"] for line in lines(stream)] == [
        "%d items (arguments could not be shown: TypeError)",
        "%s items (arguments could not be shown: RuntimeError)",
    ]
