"""One value of the configuration: what was expected, in words; reading it, strictly; writing it back.

A file has types of its own and must use the right one. Environment variables and flags hold only text, which is read
as the setting's type. Errors never contain the value of a secret.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

from beaconfire.base.units import Seconds, Size
from beaconfire.config.table import Setting

MASK = "********"
"""What is shown instead of a secret. It is refused as one, so that a masked print-out cannot become a configuration."""

_TEXT_SHOWN_MAX = 60
_WORDS_OF_TRUTH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_INTEGER = re.compile(r"[+-]?[0-9]+")


class ValueProblem(Exception):
    """A value that its setting does not take. The text tells what was expected and what was found."""


def read(setting: Setting, value: object, from_text: bool) -> Any:
    """The value in the setting's type. Raises ValueProblem."""
    if setting.secret and MASK in (value if isinstance(value, list) else [value]):
        raise ValueProblem("expected the secret itself, got the mask that `beaconfire config show` prints instead")
    if get_origin(setting.type) is list:
        return _read_list(setting, value, from_text)
    reader = _READERS.get(setting.type, _read_text)
    try:
        result = reader(value, from_text)
        _check_bounds(setting, result)
    except ValueError:
        raise ValueProblem(f"expected {expectation(setting)}, got {found(value, setting.secret)}") from None
    return result


def _read_bool(value: object, from_text: bool) -> bool:
    if from_text and isinstance(value, str):
        value = _WORDS_OF_TRUTH.get(value.strip().lower())
    if not isinstance(value, bool):
        raise ValueError
    return value


def _read_int(value: object, from_text: bool) -> int:
    if from_text and isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError
    return value


def _read_float(value: object, from_text: bool) -> float:
    if from_text and isinstance(value, str):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _read_text(value: object, from_text: bool) -> str:
    if not isinstance(value, str):
        raise ValueError
    value.encode()  # raises for what a variable holds that is not UTF-8
    return value


_READERS: dict[Any, Callable[[object, bool], Any]] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    Seconds: lambda value, from_text: Seconds.parse(value),
    Size: lambda value, from_text: Size.parse(value),
}


def _read_list(setting: Setting, value: object, from_text: bool) -> list[str]:
    """A list of text, no item empty. As text: a JSON array, or items between commas."""
    items = _split_text(value) if from_text and isinstance(value, str) else value
    if not isinstance(items, list):
        raise ValueProblem(f"expected {expectation(setting)}, got {found(value, setting.secret)}")
    for number, item in enumerate(items, 1):
        if not isinstance(item, str) or not item.strip():
            what = "empty" if isinstance(item, str) else found(item, setting.secret)
            raise ValueProblem(f"expected {expectation(setting)}, but item {number} is {what}")
    return items


def _split_text(text: str) -> object:
    if not text.strip():
        return []
    if not text.lstrip().startswith("["):
        return [item.strip() for item in text.split(",")]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _check_bounds(setting: Setting, value: Any) -> None:
    """Raises ValueError for a value outside what the annotation allows."""
    meta = setting.meta
    outside = (
        (get_origin(setting.type) is Literal and value not in get_args(setting.type))
        or (meta.ge is not None and value < meta.ge)
        or (meta.gt is not None and value <= meta.gt)
        or (meta.le is not None and value > meta.le)
        or (meta.lt is not None and value >= meta.lt)
        or (meta.min_length is not None and len(value) < meta.min_length)
        or (meta.max_length is not None and len(value) > meta.max_length)
        or (meta.pattern is not None and re.search(meta.pattern, value) is None)
    )
    if outside:
        raise ValueError


# --- in words ----------------------------------------------------------------------------------------------------

_EXPECTATIONS: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    Seconds: 'a duration like "25s", "300ms" or "1h30m"',
    Size: 'a size like 65536, "64KiB" or "1MB"',
    dict: "a table of tables",
}
_TYPE_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    Seconds: "duration",
    Size: "size",
    dict: "table of tables",
}


def expectation(setting: Setting) -> str:
    """What the setting takes, to stand after "expected": `an integer from 0 to 65535`."""
    if get_origin(setting.type) is Literal:
        return _alternatives(setting)
    if get_origin(setting.type) is list:
        return "a list of text"
    words = [_EXPECTATIONS[setting.type], bounds(setting)]
    return " ".join(word for word in words if word)


def type_words(setting: Setting) -> str:
    """What kind of value it is, for a column of a table: `duration`, `"stream" or "cache"`."""
    if get_origin(setting.type) is Literal:
        return _alternatives(setting)
    if get_origin(setting.type) is list:
        return "list of text"
    return _TYPE_WORDS[setting.type]


def bounds(setting: Setting) -> str:
    """What the annotation demands beyond the type: `from 0 to 65535`; empty if nothing."""
    meta, words = setting.meta, []
    if meta.ge is not None and meta.le is not None:
        words.append(f"from {meta.ge} to {meta.le}")
    elif meta.ge is not None:
        words.append(f"of {meta.ge} or more")
    elif meta.le is not None:
        words.append(f"of {meta.le} or less")
    if meta.gt is not None:
        words.append(f"above {meta.gt}")
    if meta.lt is not None:
        words.append(f"below {meta.lt}")
    if meta.min_length == 1:
        words.append("that is not empty")
    elif meta.min_length is not None:
        words.append(f"of {meta.min_length} or more characters")
    if meta.max_length is not None:
        words.append(f"of at most {meta.max_length} characters")
    if meta.pattern is not None:
        plain_start = re.fullmatch(r"\^([\w/:-]+)", meta.pattern)
        words.append(f'that starts with "{plain_start[1]}"' if plain_start else f"that matches {meta.pattern}")
    return " and ".join(words)


def _alternatives(setting: Setting) -> str:
    *firsts, last = [json.dumps(choice) for choice in get_args(setting.type)]
    return f"{', '.join(firsts)} or {last}" if firsts else last


def found(value: object, secret: bool = False) -> str:
    """A wrong value in words. Of a secret only the kind is told."""
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "true or false"),
        (int, "an integer"),
        (float, "a number"),
        (str, "text"),
        (list, "a list"),
        (dict, "a table"),
    )
    kind = "nothing" if value is None else next((words for t, words in kinds if isinstance(value, t)), "a date or time")
    if secret or not isinstance(value, str | int | float):
        return kind
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _TEXT_SHOWN_MAX else f"{text[:_TEXT_SHOWN_MAX]}…"


# --- writing -----------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """The value in types every file format has: durations and sizes become the text a person would write."""
    if isinstance(value, Seconds):
        return _plain_duration(value)
    if isinstance(value, Size):
        text = str(value)
        return int(value) if text.isdigit() else text
    return list(value) if isinstance(value, list) else value


def _plain_duration(value: Seconds) -> str | float:
    """Its text, unless that is rounded for reading and would not give the same value back."""
    words = str(value)
    try:
        exact = Seconds.parse(words) == value
    except ValueError:
        exact = False
    return words if exact else float(value)


def masked(setting: Setting, value: Any) -> Any:
    """The value as it may be shown: of a secret only whether it is set, and how many there are."""
    if not setting.secret or not value:
        return value
    return [MASK for _ in value] if isinstance(value, list) else MASK


def literal(value: Any) -> str:
    """The value as it stands in a TOML file: `"25s"`, `true`, `["a", "b"]`."""
    return json.dumps(plain(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def text(value: Any) -> str:
    """The value as it stands in an environment variable: `25s`, `true`, `["a", "b"]`."""
    simple = plain(value)
    return simple if isinstance(simple, str) else json.dumps(simple, ensure_ascii=False)
