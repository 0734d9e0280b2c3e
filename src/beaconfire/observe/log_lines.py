"""What a log line looks like: its shape, its two renderings, and the same shape for what libraries log.

The renderings differ in looks only. Both escape what could be taken for the end of a line or for a command to the
terminal, because some of the text comes from clients.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf
from typing import Any, Final

import msgspec
from structlog.processors import format_exc_info
from structlog.typing import EventDict, Processor

from beaconfire.base.clock import Clock
from beaconfire.observe.log_output import Output
from beaconfire.observe.redaction import Redactor

TEXT_MAX = 2000
"""Characters of one field; a client chooses some of them, and a log is no place for megabytes."""
TRACEBACK_MAX = 20_000
KINDS_MAX = 1000
"""Kinds of library messages that are remembered for not being repeated."""

_LEVEL: Final = {"warn": "warning", "exception": "error", "critical": "error", "fatal": "error"}
_STATUS: Final = {"debug": "ok", "info": "ok", "warning": "warning"}
_COLOUR: Final = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_PLAIN: Final = "\x1b[0m"


class Shape:
    """The processor that makes a line: fixed fields first and always there, secrets gone, text of bounded length."""

    def __init__(self, redactor: Redactor, clock: Clock) -> None:
        self._redactor = redactor
        self._clock = clock

    def __call__(self, logger: object, method: str, fields: EventDict) -> EventDict:
        level = _LEVEL.get(method, method)
        moment = datetime.fromtimestamp(self._clock.unix_s(), UTC)
        line: EventDict = {
            "timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "action": "",
            "status": fields.pop("status", None) or _STATUS.get(level, "error"),
        }
        if "duration_ms" in fields:
            line["duration_ms"] = fields.pop("duration_ms")
        if "exc_info" in fields:
            fields = format_exc_info(logger, method, fields)
        for key, value in self._redactor.fields(fields).items():
            if isinstance(value, str) and len(value) > TEXT_MAX:
                value = _shorten(value, TRACEBACK_MAX if key == "exception" else TEXT_MAX)
            line["action" if key == "event" else key] = value
        return line


class JsonRenderer:
    """One JSON object per line. ASCII only, so that no encoding of the stream and no control character can spoil it."""

    def __init__(self) -> None:
        self._encode_ascii = json.JSONEncoder(separators=(",", ":")).encode
        self._encode_fast = msgspec.json.Encoder().encode

    def __call__(self, logger: object, method: str, line: EventDict) -> str:
        try:
            encoded = self._encode_fast(line)
        except UnicodeEncodeError:  # half a surrogate pair; the standard library escapes it
            return self._encode_ascii(line)
        return encoded.decode() if encoded.isascii() else self._encode_ascii(line)


class TextRenderer:
    """For people: `time level action status key=value …`, a traceback indented below."""

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def __call__(self, logger: object, method: str, line: EventDict) -> str:
        exception = line.pop("exception", None)
        level = f"{line.pop('level'):<7}"
        if self._colours:
            level = f"{_COLOUR.get(level.strip(), '')}{level}{_PLAIN}"
        head = f"{line.pop('timestamp')} {level} {line.pop('action'):<18} {line.pop('status'):<7}"
        text = " ".join([head, *(f"{key}={_readable(value)}" for key, value in line.items())])
        if exception is not None:
            text += "".join(f"\n    {_printable(each)}" for each in str(exception).splitlines())
        return text


class LibraryHandler(logging.Handler):
    """Brings the lines of libraries, which use the standard library's logging, into our shape and output.

    The same message is written once a second at most, with their number: some of them answer to what
    a peer sends.
    """

    def __init__(self, output: Output, processors: Sequence[Processor], previous_level: int, clock: Clock) -> None:
        super().__init__()
        self.previous_level = previous_level
        self._output = output
        self._processors = processors
        self._clock = clock
        self._written: dict[tuple[str, str], tuple[float, int]] = {}
        # We log requests ourselves; uvicorn's lines would show query strings.
        self.addFilter(lambda record: record.name != "uvicorn.access")

    def emit(self, record: logging.LogRecord) -> None:
        count = self._count((record.name, str(record.msg)))
        if count == 0:
            return
        line: Any = {"event": "library_log", "count": count, "logger": record.name, "message": _message(record)}
        if record.exc_info and record.exc_info[0] is not None:
            line["exc_info"] = record.exc_info
        self._output.write(render(self._processors, record.levelname.lower(), line))

    def _count(self, kind: tuple[str, str]) -> int:
        """How many of this kind there were since one was written, with this one; 0 if it is too soon for another."""
        now_s = self._clock.now_s()
        written_s, left_out = self._written.get(kind, (-inf, 0))
        if now_s - written_s < 1:
            self._written[kind] = (written_s, left_out + 1)
            return 0
        if len(self._written) >= KINDS_MAX:
            self._written.clear()
        self._written[kind] = (now_s, 0)
        return left_out + 1


def render(processors: Sequence[Processor], level: str, line: Any) -> str:
    """A line as it is written, without its end."""
    for processor in processors:
        line = processor(None, level, line)
    return str(line)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage().strip()
    except Exception as error:  # noqa: BLE001 - the argument's own code ran, and may raise anything
        return f"{record.msg} (arguments could not be shown: {type(error).__name__})"


def _shorten(text: str, length_max: int) -> str:
    """Cuts in the middle: a message starts with what happened, and a traceback ends with it."""
    if len(text) <= length_max:
        return text
    half = length_max // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters left out … {text[-half:]}"


def _readable(value: object) -> str:
    if isinstance(value, str):
        bare = value and value.isprintable() and not any(each in value for each in " =\"'")
        return value if bare else repr(value)
    return json.dumps(value)


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() or each == "\t" else repr(each)[1:-1] for each in text)
