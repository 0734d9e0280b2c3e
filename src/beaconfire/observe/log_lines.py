"""The format of log lines: structlog processors, and a handler that gives library logging the same format.

structlog renders the lines: `JSONRenderer` for machines, `ConsoleRenderer` for people. Some of the text comes from
clients, so both renderings escape everything that could end a line or control a terminal.

This module contains what structlog does not offer:

- `FieldNormalizer`: fixed fields in a fixed order, a clock that can be set, redaction, and a limit on length.
- A serializer for compact ASCII JSON, several times faster than `json.dumps`: each connect writes a line.
- A text format that escapes control characters; `ConsoleRenderer` escapes only line ends.
- `LibraryHandler`: limits repeated messages. structlog's `ProcessorFormatter` does not, and loses a message whose
  arguments cannot be formatted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf
from typing import Any, Final

import msgspec
from structlog.dev import Column, ColumnFormatter, ConsoleRenderer
from structlog.processors import JSONRenderer, format_exc_info
from structlog.typing import EventDict, Processor

from beaconfire.base.clock import Clock
from beaconfire.observe.log_output import LogOutput
from beaconfire.observe.redaction import Redactor

FIELD_LENGTH_MAX: Final = 2000
"""Characters of one field. Clients choose the text of some fields."""
TRACEBACK_LENGTH_MAX: Final = 20_000
LIBRARY_MESSAGES_MAX: Final = 1000
"""Library messages whose repetition is limited. Beyond this number, all of them may be written again."""

_LEVELS: Final = {"warn": "warning", "exception": "error", "critical": "error", "fatal": "error"}
_STATUSES: Final = {"debug": "ok", "info": "ok", "warning": "warning"}
_COLOURS: Final = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_COLOUR_RESET: Final = "\x1b[0m"


class ProcessNamer:
    """A processor that adds the name of this process."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, logger: object, method: str, fields: EventDict) -> EventDict:
        fields["process"] = self._name
        return fields


class FieldNormalizer:
    """A processor that puts the fixed fields first, redacts secrets and shortens long text."""

    def __init__(self, redactor: Redactor, clock: Clock) -> None:
        self._redactor = redactor
        self._clock = clock

    def __call__(self, logger: object, method: str, fields: EventDict) -> EventDict:
        level = _LEVELS.get(method, method)
        time = datetime.fromtimestamp(self._clock.unix_s(), UTC)
        line: EventDict = {
            "timestamp": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "action": "",
            "status": fields.pop("status", None) or _STATUSES.get(level, "error"),
        }
        if "duration_ms" in fields:
            line["duration_ms"] = fields.pop("duration_ms")
        if "exc_info" in fields:
            fields = format_exc_info(logger, method, fields)
        for key, value in self._redactor.fields(fields).items():
            if isinstance(value, str) and len(value) > FIELD_LENGTH_MAX:
                value = _shorten(value, TRACEBACK_LENGTH_MAX if key == "exception" else FIELD_LENGTH_MAX)
            line["action" if key == "event" else key] = value
        return line


def json_renderer() -> Processor:
    """One JSON object per line. ASCII only, so that every stream can encode it and control characters are escaped."""
    encode_ascii = json.JSONEncoder(separators=(",", ":")).encode
    encode_utf8 = msgspec.json.Encoder().encode

    def serialize(line: EventDict, default: object) -> str:  # `default` is for types that the redactor never returns
        try:
            encoded = encode_utf8(line)
        except UnicodeEncodeError:  # half of a surrogate pair, which the standard library escapes
            return encode_ascii(line)
        return encoded.decode() if encoded.isascii() else encode_ascii(line)

    return JSONRenderer(serialize)


def text_renderer(colours: bool) -> Sequence[Processor]:
    """For people: `time level action status key=value …`, with an indented traceback on the lines below."""
    columns = [
        Column("timestamp", _pad(0)),
        Column("level", _colour_level if colours else _pad(7)),
        Column("action", _pad(18)),
        Column("status", _pad(7)),
        Column("", lambda key, value: f"{key}={_quote(value)}"),
    ]
    return _indent_exception, ConsoleRenderer(columns=columns, sort_keys=False)


def message_renderer() -> Sequence[Processor]:
    """As `text_renderer`, but without time, level and padding: the logging of another application adds its own."""

    def without_time_and_level(logger: object, method: str, line: EventDict) -> EventDict:
        return {name: value for name, value in line.items() if name not in ("timestamp", "level")}

    columns = [
        Column("action", _pad(0)),
        Column("status", _pad(0)),
        Column("", lambda key, value: f"{key}={_quote(value)}"),
    ]
    return _indent_exception, without_time_and_level, ConsoleRenderer(columns=columns, sort_keys=False)


def render(processors: Sequence[Processor], level: str, line: Any) -> str:
    """The text of a line, without the line end."""
    for processor in processors:
        line = processor(None, level, line)
    return str(line)


class LibraryHandler(logging.Handler):
    """Writes the log messages of libraries, which use the standard library's logging, in our format.

    The same message is written at most once per second, with a count: peers can cause some messages at will.
    """

    def __init__(self, output: LogOutput, processors: Sequence[Processor], previous_level: int, clock: Clock) -> None:
        super().__init__()
        self.previous_level = previous_level
        self._output = output
        self._processors = processors
        self._clock = clock
        self._written: dict[tuple[str, str], tuple[float, int]] = {}
        # The server logs requests itself. The lines of uvicorn contain query strings.
        self.addFilter(lambda record: record.name != "uvicorn.access")

    def emit(self, record: logging.LogRecord) -> None:
        count = self._count((record.name, str(record.msg)))
        if count == 0:
            return
        line: Any = {"event": "library_log", "count": count, "logger": record.name, "message": _message(record)}
        if record.exc_info and record.exc_info[0] is not None:
            line["exc_info"] = record.exc_info
        self._output.write(render(self._processors, record.levelname.lower(), line))

    def _count(self, message: tuple[str, str]) -> int:
        """How many times this message was logged since it was last written; 0 if it must not be written yet."""
        now_s = self._clock.now_s()
        written_s, skipped = self._written.get(message, (-inf, 0))
        if now_s - written_s < 1:
            self._written[message] = (written_s, skipped + 1)
            return 0
        if len(self._written) >= LIBRARY_MESSAGES_MAX:
            self._written.clear()
        self._written[message] = (now_s, 0)
        return skipped + 1


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage().strip()
    except Exception as error:  # noqa: BLE001 - formatting runs code of the arguments, which may raise anything
        return f"{record.msg} (arguments could not be shown: {type(error).__name__})"


def _shorten(text: str, length_max: int) -> str:
    """Cuts in the middle: a message starts with the most important part, and a traceback ends with it."""
    if len(text) <= length_max:
        return text
    half = length_max // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters left out … {text[-half:]}"


# --- text ---


def _pad(width: int) -> ColumnFormatter:
    return lambda key, value: str(value).ljust(width)


def _colour_level(key: str, value: object) -> str:
    return f"{_COLOURS.get(str(value), '')}{value!s:<7}{_COLOUR_RESET}"


def _quote(value: object) -> str:
    if isinstance(value, str):
        bare = value and value.isprintable() and not any(each in value for each in " =\"'")
        return value if bare else repr(value)
    return json.dumps(value)


def _indent_exception(logger: object, method: str, line: EventDict) -> EventDict:
    """A processor: the indentation shows which lines belong to a traceback, whose text may come from a client."""
    if "exception" in line:
        lines = str(line["exception"]).splitlines()
        line["exception"] = "\n".join(f"    {_escape(each)}" for each in lines)
    return line


def _escape(text: str) -> str:
    return "".join(each if each.isprintable() or each == "\t" else repr(each)[1:-1] for each in text)
