"""The configuration in effect, as lines of a file with the origin of every value beside it. Secrets are masked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from beaconfire.config import TABLE, Loaded, as_document
from beaconfire.config.values import literal, masked, plain


class Line(NamedTuple):
    """`comment` is the origin of the value on this line; empty for headings and empty lines."""

    text: str
    comment: str = ""


class _Entry(NamedTuple):
    option: str
    value: Any
    origin: str


def _tables(loaded: Loaded) -> Iterator[tuple[tuple[str, ...], list[_Entry]]]:
    """Every table by its path (`("namespaces", "small")`), with its options in order."""
    for name, content in as_document(loaded.config).items():
        if TABLE.sections[name].repeated:
            for inner, options in content.items():
                yield (name, inner), _entries(f"{name}.{inner}", options, loaded)
        else:
            yield (name,), _entries(name, content, loaded)


def _entries(table: str, options: dict[str, Any], loaded: Loaded) -> list[_Entry]:
    entries = []
    for option, value in options.items():
        name = f"{table}.{option}"
        setting = TABLE.find(name)
        assert setting is not None, name
        entries.append(_Entry(option, masked(setting, value), loaded.origins.get(name, "default")))
    return entries


def as_toml(loaded: Loaded) -> list[Line]:
    lines: list[Line] = []
    for path, entries in _tables(loaded):
        if lines:
            lines.append(Line(""))
        lines.append(Line(f"[{'.'.join(map(_toml_key, path))}]"))
        lines += (Line(f"{entry.option} = {literal(entry.value)}", entry.origin) for entry in entries)
    return lines


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def as_yaml(loaded: Loaded) -> list[Line]:
    """Values are written as JSON, which YAML includes; names of namespaces are quoted, since `no` is not a text."""
    lines: list[Line] = []
    parent: tuple[str, ...] = ()
    for path, entries in _tables(loaded):
        *outer, last = path
        if outer and parent != tuple(outer):
            lines.append(Line(f"{outer[0]}:"))
        parent = tuple(outer)
        indent = "  " * len(outer)
        lines.append(Line(f"{indent}{json.dumps(last) if outer else last}:"))
        lines += (Line(f"{indent}  {entry.option}: {literal(entry.value)}", entry.origin) for entry in entries)
    return lines


def as_json(loaded: Loaded) -> dict[str, Any]:
    """Nested tables; each option is an object of `value` and `from`."""
    document: dict[str, Any] = {}
    for path, entries in _tables(loaded):
        place = document
        for name in path:
            place = place.setdefault(name, {})
        place.update({entry.option: {"value": plain(entry.value), "from": entry.origin} for entry in entries})
    return document
