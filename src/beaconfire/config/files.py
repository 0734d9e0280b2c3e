"""Configuration files: TOML, YAML or JSON text to nested tables, refusing a key written twice.

Messages tell the place of a mistake and never quote the line, which may hold a secret.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from typing import Any

import yaml


class FileProblem(Exception):
    """A file that cannot be read or parsed. The text says why, without the file's name or its content."""


def read_file(path: str) -> dict[str, Any]:
    """The tables of a configuration file, its format told by its extension. Raises FileProblem."""
    extension = os.path.splitext(path)[1].lower()
    parser = _PARSERS.get(extension)
    if parser is None:
        raise FileProblem("expected a file name that ends in .toml, .yaml, .yml or .json")
    try:
        with open(path, encoding="utf-8") as file:
            document = parser(file.read())
    except FileNotFoundError:
        raise FileProblem("no such file") from None
    except OSError as error:
        raise FileProblem(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise FileProblem(f"is not UTF-8 text (byte {error.start})") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise FileProblem("expected tables of options at the top")
    return {str(name): content for name, content in document.items()}


def parse_json(text: str) -> Any:
    """Any JSON value; a key may not come twice in one object. Raises FileProblem."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise FileProblem(f"{error.msg} (line {error.lineno}, column {error.colno})") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise FileProblem(f'the key "{key}" comes twice')
        result[key] = value
    return result


def _parse_toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FileProblem(str(error)) from None


def _parse_yaml(text: str) -> Any:
    try:
        return yaml.load(text, _StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise FileProblem(f"{error.problem}{place}") from None
    except yaml.YAMLError:
        raise FileProblem("holds a character that YAML does not allow") from None


class _StrictLoader(yaml.SafeLoader):
    """Safe, and a key may not come twice in one mapping (YAML 1.2 §3.2.1.1, which the library lets pass).

    Looks at mappings as they are written, before `<<` merges others into them: overriding a merged key is right.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        assert node is not None
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                raise yaml.composer.ComposerError(None, None, f'the key "{key.value}" comes twice', key.start_mark)
            seen.add((key.tag, key.value))
        return node


_PARSERS: dict[str, Callable[[str], Any]] = {
    ".toml": _parse_toml,
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".json": parse_json,
}
