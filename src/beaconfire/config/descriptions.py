"""Describes settings and values in words, for error messages and documentation."""

from __future__ import annotations

import json
import re
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from beaconfire.base.units import Seconds, Size
from beaconfire.config.table import Setting

_TEXT_SHOWN_MAX = 60
_TYPES: dict[Any, tuple[str, str, str]] = {
    bool: ("true or false", "true or false", ""),
    int: ("integer", "an integer", ""),
    str: ("text", "text", ""),
    list[str]: ("list of text", "a list of text", ""),
    Seconds: ("duration", "a duration", 'like "25s", "300ms" or "1h30m"'),
    Size: ("size", "a size", 'like 65536, "64KiB" or "1MB"'),
    dict: ("table of tables", "a table of tables", ""),
}
"""For each type of a setting: the words in documentation, the words in an error message, and examples."""

_BOUNDS = {
    "ge": "of {} or more",
    "gt": "above {}",
    "le": "of {} or less",
    "lt": "below {}",
    "min_length": "of {} or more characters",
    "max_length": "of at most {} characters",
    "pattern": "that matches {}",
}


def describe_type(setting: Setting) -> str:
    """Returns the type with its bounds, for documentation: `integer from 0 to 65535`, `"stream" or "cache"`."""
    if get_origin(setting.type) is Literal:
        return _describe_choices(setting)
    name, _, _ = _TYPES[setting.type]
    return " ".join(filter(None, (name, _describe_bounds(setting))))


def describe_expectation(setting: Setting) -> str:
    """Returns the text that follows "expected" in an error message: `a duration above 0 like "25s"`."""
    if get_origin(setting.type) is Literal:
        return _describe_choices(setting)
    _, name, examples = _TYPES[setting.type]
    return " ".join(filter(None, (name, _describe_bounds(setting), examples)))


def _describe_choices(setting: Setting) -> str:
    *firsts, last = [json.dumps(choice) for choice in get_args(setting.type)]
    return f"{', '.join(firsts)} or {last}" if firsts else last


def _describe_bounds(setting: Setting) -> str:
    """Returns what the annotation demands beyond the type: `from 0 to 65535`; empty if it demands nothing."""
    meta = setting.meta
    bounds = {name: bound for name in _BOUNDS if (bound := getattr(meta, name)) is not None}
    words = []
    if bounds.keys() >= {"ge", "le"}:
        words.append(f"from {bounds.pop('ge')} to {bounds.pop('le')}")
    if bounds.get("min_length") == 1:
        words.append("that is not empty")
        del bounds["min_length"]
    if meta.pattern is not None and (prefix := re.fullmatch(r"\^([\w/:-]+)", meta.pattern)):
        words.append(f'that starts with "{prefix[1]}"')
        del bounds["pattern"]
    return " and ".join([*words, *(_BOUNDS[name].format(bound) for name, bound in bounds.items())])


def describe_value(value: object, secret: bool = False) -> str:
    """Returns an invalid value as written, shortened if long. Of a secret, a list or a table only the type is named."""
    if secret or not isinstance(value, str | int | float):
        return _describe_kind(value)
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _TEXT_SHOWN_MAX else f"{text[:_TEXT_SHOWN_MAX]}…"


def _describe_kind(value: object) -> str:
    kinds: tuple[tuple[type, str], ...] = (
        (NoneType, "nothing"),
        (bool, "true or false"),
        (int, "an integer"),
        (float, "a number"),
        (str, "text"),
        (list, "a list"),
        (dict, "a table"),
    )
    return next((words for kind, words in kinds if isinstance(value, kind)), "a date or time")
