"""Reads and writes single values of the configuration.

Files have types, and a value must have the type of its setting. Environment variables and flags have only text, which
is converted to the type of the setting. No error contains the value of a secret.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import msgspec

from beaconfire.base.units import Seconds, Size
from beaconfire.config.descriptions import describe_expectation, describe_value
from beaconfire.config.table import Setting

MASK = "********"
"""Shown in place of a secret. Refused as a secret, so that the output of `config show` can't become a configuration."""

_BOOLEANS = {
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


class InvalidValue(Exception):
    """A setting does not accept a value. The text names what was expected and what was found."""


# --- reading -----------------------------------------------------------------------------------------------------


def read_value(setting: Setting, value: object, from_text: bool) -> Any:
    """Returns the value in the type of the setting. `from_text` allows text for every type. Raises InvalidValue."""
    if setting.secret and MASK in (value if isinstance(value, list) else [value]):
        raise InvalidValue("expected the secret itself, got the mask that `beaconfire config show` prints instead")
    if from_text and isinstance(value, str):
        value = _convert_text(setting.type, value)
    try:
        if setting.type == list[str]:
            return _check_list(setting, value)
        return _check_value(setting, value)
    except ValueError:
        found = describe_value(value, setting.secret)
        raise InvalidValue(f"expected {describe_expectation(setting)}, got {found}") from None


def _convert_text(type_: Any, text: str) -> object:
    """Returns the text as a value of `type_`, or unchanged if that is not possible."""
    if type_ is bool:
        return _BOOLEANS.get(text.strip().lower(), text)
    if type_ is int and _INTEGER.fullmatch(text.strip()):
        return int(text)
    return _split_list(text) if type_ == list[str] else text


def _split_list(text: str) -> object:
    """Reads a JSON array, or items separated by commas. Returns an invalid array unchanged."""
    if not text.strip():
        return []
    if not text.lstrip().startswith("["):
        return [item.strip() for item in text.split(",")]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _check_value(setting: Setting, value: object) -> Any:
    """Returns the value in the type of the setting. Raises ValueError for a wrong type or a value out of bounds."""
    if setting.type is Seconds:
        duration = Seconds.parse(value)
        msgspec.convert(float(duration), Annotated[float, setting.meta])
        return duration
    if setting.type is Size:
        size = Size.parse(value)
        msgspec.convert(int(size), Annotated[int, setting.meta])
        return size
    if isinstance(value, str):
        value.encode()  # raises for bytes in an environment variable that are not UTF-8
    return msgspec.convert(value, Annotated[setting.type, setting.meta])


def _check_list(setting: Setting, value: object) -> list[str]:
    """Raises ValueError if `value` is not a list, InvalidValue if an item is not text or is empty."""
    if not isinstance(value, list):
        raise ValueError
    for number, item in enumerate(value, 1):
        if not isinstance(item, str) or not item.strip():
            found = "empty" if isinstance(item, str) else describe_value(item, setting.secret)
            raise InvalidValue(f"expected {describe_expectation(setting)}, but item {number} is {found}")
    return value


# --- writing -----------------------------------------------------------------------------------------------------


def to_plain(value: Any) -> Any:
    """Returns the value in types that every file format has: durations and sizes become text like `"25s"`."""
    if isinstance(value, Seconds):
        return _plain_duration(value)
    if isinstance(value, Size):
        text = str(value)
        return int(value) if text.isdigit() else text
    return list(value) if isinstance(value, list) else value


def _plain_duration(value: Seconds) -> str | float:
    """Returns the duration as text, or as a number if the text is rounded and would give another duration."""
    text = str(value)
    try:
        exact = Seconds.parse(text) == value
    except ValueError:
        exact = False
    return text if exact else float(value)


def mask(setting: Setting, value: Any) -> Any:
    """Returns the value as it may be shown: each secret that is set becomes `MASK`."""
    if not setting.secret or not value:
        return value
    return [MASK for _ in value] if isinstance(value, list) else MASK


def to_literal(value: Any) -> str:
    """Returns the value as written in a TOML, YAML or JSON file: `"25s"`, `true`, `["a", "b"]`."""
    return json.dumps(to_plain(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def to_text(value: Any) -> str:
    """Returns the value as written in an environment variable: `25s`, `true`, `["a", "b"]`."""
    plain = to_plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
