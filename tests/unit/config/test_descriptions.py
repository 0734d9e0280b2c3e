"""Settings and values in words."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from msgspec import Meta

from beaconfire.base.units import Seconds, Size
from beaconfire.config import TABLE
from beaconfire.config.descriptions import describe_expectation, describe_type, describe_value
from beaconfire.config.table import Setting


def setting(type_: Any, **meta: Any) -> Setting:
    return Setting("section", "option", type_, None, Meta(**meta), "BEACONFIRE_SECTION_OPTION")


@pytest.mark.parametrize(
    ("described", "type_words", "expectation"),
    [
        (setting(bool), "true or false", "true or false"),
        (setting(int), "integer", "an integer"),
        (setting(int, ge=0, le=9), "integer from 0 to 9", "an integer from 0 to 9"),
        (setting(int, ge=1), "integer of 1 or more", "an integer of 1 or more"),
        (setting(int, le=9), "integer of 9 or less", "an integer of 9 or less"),
        (setting(int, gt=0, lt=9), "integer above 0 and below 9", "an integer above 0 and below 9"),
        (setting(str), "text", "text"),
        (setting(str, min_length=1), "text that is not empty", "text that is not empty"),
        (
            setting(str, min_length=2, max_length=9),
            "text of 2 or more characters and of at most 9 characters",
            "text of 2 or more characters and of at most 9 characters",
        ),
        (setting(str, pattern="^/"), 'text that starts with "/"', 'text that starts with "/"'),
        (setting(str, pattern="^[a-z]$"), "text that matches ^[a-z]$", "text that matches ^[a-z]$"),
        (setting(list[str]), "list of text", "a list of text"),
        (setting(Seconds, gt=0), "duration above 0", 'a duration above 0 like "25s", "300ms" or "1h30m"'),
        (setting(Size), "size", 'a size like 65536, "64KiB" or "1MB"'),
        (setting(Literal["a"]), '"a"', '"a"'),
        (setting(Literal["a", "b", "c"]), '"a", "b" or "c"', '"a", "b" or "c"'),
    ],
)
def test_type_with_bounds(described: Setting, type_words: str, expectation: str) -> None:
    """Documentation and error messages name the type and all bounds."""
    assert describe_type(described) == type_words
    assert describe_expectation(described) == expectation


def test_every_setting_can_be_described() -> None:
    """Every type in the table of settings has words."""
    assert all(describe_type(row) and describe_expectation(row) for row in TABLE)


@pytest.mark.parametrize(
    ("value", "words", "words_if_secret"),
    [
        ("x", '"x"', "text"),
        ("烽火", '"烽火"', "text"),
        ("x" * 100, f'"{"x" * 59}…', "text"),
        (5, "5", "an integer"),
        (1.5, "1.5", "a number"),
        (True, "true", "true or false"),
        (None, "nothing", "nothing"),
        (["hush"], "a list", "a list"),
        ({"hush": 1}, "a table", "a table"),
    ],
)
def test_invalid_value(value: object, words: str, words_if_secret: str) -> None:
    """A value is shown as written. Of a secret only the type is shown."""
    assert describe_value(value) == words
    assert describe_value(value, secret=True) == words_if_secret
