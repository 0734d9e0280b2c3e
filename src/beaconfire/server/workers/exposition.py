"""Text of Prometheus: adds a label to all series of one process, and merges the texts of several processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_HELP: Final = "# HELP "


def add_label(text: str, name: str, value: str) -> str:
    """Adds the label to each series. `value` must not need escaping."""
    label = f'{name}="{value}"'
    return "".join(
        line if line.startswith("#") else _with_label(line, label) for line in text.splitlines(keepends=True)
    )


def _with_label(line: str, label: str) -> str:
    brace, space = line.find("{"), line.find(" ")
    if 0 <= brace < space:
        return f"{line[: brace + 1]}{label},{line[brace + 1 :]}"
    return f"{line[:space]}{{{label}}}{line[space:]}"


def merge(texts: Iterable[str]) -> str:
    """One text with all series. Each family is there once, with the help and type of the first text that has it: the
    format allows a family only once. No two texts may have a series with the same labels."""
    families: dict[str, list[str]] = {}
    for text in texts:
        for family in text.split(_HELP)[1:]:
            name = family[: family.index(" ")]
            head, series = _split(family)
            families.setdefault(name, [_HELP, head]).append(series)
    return "".join(part for parts in families.values() for part in parts)


def _split(family: str) -> tuple[str, str]:
    """The lines of help and type, and the series."""
    end = family.index("\n", family.index("\n") + 1) + 1
    return family[:end], family[end:]
