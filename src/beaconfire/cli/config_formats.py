"""Writes the configuration in effect as TOML, YAML or JSON, with the origin of every value. Secrets are masked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from beaconfire.config import TABLE, Loaded, as_document
from beaconfire.config.values import mask, to_literal, to_plain


class Line(NamedTuple):
    """A line of a file. `comment` is the origin of its value, empty for headings and empty lines."""

    text: str
    comment: str = ""


class _Entry(NamedTuple):
    option: str
    value: Any
    origin: str


def _list_tables(loaded: Loaded) -> Iterator[tuple[tuple[str, ...], list[_Entry]]]:
    """Yields every table with its path, like `("namespaces", "small")`, and its options in order."""
    for name, content in as_document(loaded.config).items():
        if TABLE.sections[name].repeated:
            for inner, options in content.items():
                yield (name, inner), _list_entries(f"{name}.{inner}", options, loaded)
        else:
            yield (name,), _list_entries(name, content, loaded)


def _list_entries(table: str, options: dict[str, Any], loaded: Loaded) -> list[_Entry]:
    entries = []
    for option, value in options.items():
        name = f"{table}.{option}"
        setting = TABLE.find(name)
        assert setting is not None, name
        entries.append(_Entry(option, mask(setting, value), loaded.origins.get(name, "default")))
    return entries


def format_toml(loaded: Loaded) -> list[Line]:
    lines: list[Line] = []
    for path, entries in _list_tables(loaded):
        if lines:
            lines.append(Line(""))
        lines.append(Line(f"[{'.'.join(map(_toml_key, path))}]"))
        lines += (Line(f"{entry.option} = {to_literal(entry.value)}", entry.origin) for entry in entries)
    return lines


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def format_yaml(loaded: Loaded) -> list[Line]:
    """Values are JSON, which is valid YAML. Names of namespaces are quoted, because YAML reads `no` as false."""
    lines: list[Line] = []
    parent: tuple[str, ...] = ()
    for path, entries in _list_tables(loaded):
        *outer, last = path
        if outer and parent != tuple(outer):
            lines.append(Line(f"{outer[0]}:"))
        parent = tuple(outer)
        indent = "  " * len(outer)
        lines.append(Line(f"{indent}{json.dumps(last) if outer else last}:"))
        lines += (Line(f"{indent}  {entry.option}: {to_literal(entry.value)}", entry.origin) for entry in entries)
    return lines


def to_json(loaded: Loaded) -> dict[str, Any]:
    """Returns nested tables. Each option is an object with `value` and `from`."""
    document: dict[str, Any] = {}
    for path, entries in _list_tables(loaded):
        table = document
        for name in path:
            table = table.setdefault(name, {})
        table.update({entry.option: {"value": to_plain(entry.value), "from": entry.origin} for entry in entries})
    return document
