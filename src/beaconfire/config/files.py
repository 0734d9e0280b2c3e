"""Reads configuration files: TOML, YAML or JSON text becomes nested tables. A duplicate key is an error.

Error messages name the place of a mistake and never quote the line, because the line may hold a secret.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from typing import Any

import yaml


class DocumentError(Exception):
    """A document that can't be read or parsed. The text gives the reason, without the file name and the content."""


def read_file(path: str) -> dict[str, Any]:
    """Returns the tables of a configuration file. The extension selects the format. Raises DocumentError."""
    extension = os.path.splitext(path)[1].lower()
    parser = _PARSERS.get(extension)
    if parser is None:
        raise DocumentError("expected a file name that ends in .toml, .yaml, .yml or .json")
    try:
        with open(path, encoding="utf-8") as file:
            document = parser(file.read())
    except FileNotFoundError:
        raise DocumentError("no such file") from None
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DocumentError(f"is not UTF-8 text (byte {error.start})") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise DocumentError("expected tables of options at the top level")
    return {str(name): content for name, content in document.items()}


def parse_json(text: str) -> Any:
    """Returns any JSON value. Raises DocumentError, also for a duplicate key in an object."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise DocumentError(f"{error.msg} (line {error.lineno}, column {error.colno})") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise DocumentError(f'duplicate key "{key}"')
        result[key] = value
    return result


def _parse_toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DocumentError(str(error)) from None


def _parse_yaml(text: str) -> Any:
    try:
        return yaml.load(text, _UniqueKeyLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise DocumentError(f"{error.problem}{place}") from None
    except yaml.YAMLError:
        raise DocumentError("contains a character that YAML does not allow") from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a duplicate key in a mapping (YAML 1.2 §3.2.1.1); the base class accepts it.

    Checks mappings as written, before `<<` merges other mappings into them, because a key may override a merged key.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert node is not None
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                raise yaml.composer.ComposerError(None, None, f'duplicate key "{key.value}"', key.start_mark)
            seen.add((key.tag, key.value))
        return node


_PARSERS: dict[str, Callable[[str], Any]] = {
    ".toml": _parse_toml,
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".json": parse_json,
}
