"""Filters that select publications by their tags: checked, compiled and shared.

A filter is a tree (section 12 of the Centrifuge client protocol): its branches are `and`, `or` and `not`, and each leaf
compares one tag. A filter comes from a client and is applied to every publication. So its size is checked first, and it
is compiled once into functions. Equal filters are one object, so fan-out applies each of them once per publication.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Final, TypeAlias
from weakref import WeakValueDictionary

import msgspec

from beaconfire.model.requests import FilterNode

DEPTH_MAX: Final = 16
"""Levels of nested branches. The limit bounds the stack."""

NUMBER_LENGTH_MAX: Final = 64
"""Characters of a number. A longer text counts as no number: a tag may be as long as a message, and slow to parse."""

NUMBERS_MAX: Final = 1024
"""Parsed numbers that are kept, because all filters read the same few tags."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_NO_TAGS: Final[Mapping[str, str]] = {}

Tags: TypeAlias = Mapping[str, str]
Predicate: TypeAlias = Callable[[Tags], bool]


class FilterError(Exception):
    """An invalid filter. The text names the node and the error.

    `limit` is the name of the limit that the filter exceeds, or empty.
    """

    def __init__(self, text: str, limit: str = "") -> None:
        super().__init__(text)
        self.limit = limit


class TagsFilter:
    """A compiled filter. Equal filters of the same `TagsFilters` are the same object."""

    __slots__ = ("__weakref__", "_predicate")

    def __init__(self, predicate: Predicate) -> None:
        self._predicate = predicate

    def passes(self, tags: Tags | None) -> bool:
        """Whether a publication with these tags is selected."""
        return self._predicate(tags or _NO_TAGS)


class TagsFilters:
    """Makes filters, and shares those in use."""

    def __init__(self, nodes_max: int, values_max: int) -> None:
        """`nodes_max` bounds the nodes of a filter, and `values_max` the values of all its lists (`vals`) together."""
        self._nodes_max = nodes_max
        self._values_max = values_max
        self._in_use: WeakValueDictionary[bytes, TagsFilter] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._in_use)

    def compile(self, root: FilterNode) -> TagsFilter:
        """Raises FilterError."""
        self._check_size(root)
        text = msgspec.json.encode(root)
        found = self._in_use.get(text)
        if found is None:
            found = self._in_use[text] = TagsFilter(_compile(root, "tags_filter"))
        return found

    def _check_size(self, root: FilterNode) -> None:
        """Raises FilterError. Without recursion, because the depth is not checked yet."""
        nodes = values = 0
        waiting = [(root, 1)]
        while waiting:
            node, depth = waiting.pop()
            nodes += 1
            values += len(node.vals)
            if nodes > self._nodes_max:
                name = "client.tags_filter_max_nodes"
                raise FilterError(f"tags_filter: more nodes than {name} ({self._nodes_max})", name)
            if values > self._values_max:
                name = "client.tags_filter_max_values"
                raise FilterError(f"tags_filter: more vals than {name} ({self._values_max})", name)
            if depth > DEPTH_MAX:
                raise FilterError(
                    f"tags_filter: nodes are nested more than {DEPTH_MAX} levels deep", "tags_filter_depth_max"
                )
            waiting.extend((child, depth + 1) for child in node.nodes)


def _compile(node: FilterNode, where: str) -> Predicate:
    """`where` is the path of the node in the tree, for errors."""
    return _compile_branch(node, where) if node.op else _compile_leaf(node, where)


def _compile_branch(node: FilterNode, where: str) -> Predicate:
    join = _BRANCHES.get(node.op)
    if join is None:
        raise FilterError(f"{where}.op: expected {_listed(_BRANCHES)}, or none for a comparison")
    if node.key or node.cmp or node.val or node.vals:
        raise FilterError(f"{where}: a node with an op compares nothing itself: it has nodes only")
    if not node.nodes or (node.op == "not" and len(node.nodes) != 1):
        raise FilterError(f"{where}.nodes: expected {'exactly one' if node.op == 'not' else 'at least one'}")
    return join([_compile(child, f"{where}.nodes[{index}]") for index, child in enumerate(node.nodes)])


def _all(parts: list[Predicate]) -> Predicate:
    def passes(tags: Tags) -> bool:
        for part in parts:  # noqa: SIM110 - a generator expression is slower than most parts
            if not part(tags):
                return False
        return True

    return passes


def _any(parts: list[Predicate]) -> Predicate:
    def passes(tags: Tags) -> bool:
        for part in parts:  # noqa: SIM110
            if part(tags):
                return True
        return False

    return passes


def _not(parts: list[Predicate]) -> Predicate:
    (part,) = parts
    return lambda tags: not part(tags)


_BRANCHES: Final[Mapping[str, Callable[[list[Predicate]], Predicate]]] = {"and": _all, "or": _any, "not": _not}


def _compile_leaf(node: FilterNode, where: str) -> Predicate:
    if node.nodes:
        raise FilterError(f"{where}.op: expected {_listed(_BRANCHES)}, because there are nodes")
    if not node.key:
        raise FilterError(f"{where}.key: expected the name of a tag")
    key, cmp, val = node.key, node.cmp, node.val
    if cmp in _LISTS:
        if val or not node.vals:
            raise FilterError(f"{where}: {cmp} takes vals, at least one, and no val")
        return _LISTS[cmp](key, frozenset(node.vals))
    if node.vals:
        raise FilterError(f"{where}.vals: only in and nin take a list")
    if cmp in _PRESENCE:
        if val:
            raise FilterError(f"{where}.val: {cmp} takes none")
        return _PRESENCE[cmp](key)
    if cmp in _TEXTS:
        return _TEXTS[cmp](key, val)
    if cmp in _NUMBERS:
        number = _number(val)
        if number is None:
            raise FilterError(f"{where}.val: expected a decimal number of at most {NUMBER_LENGTH_MAX} characters")
        return _compare_numbers(key, _NUMBERS[cmp], number)
    known = _listed((*_TEXTS, *_LISTS, *_PRESENCE, *_NUMBERS))
    raise FilterError(f"{where}.cmp: expected {known}")


_TEXTS: Final[Mapping[str, Callable[[str, str], Predicate]]] = {
    "eq": lambda key, val: lambda tags: tags.get(key) == val,
    "neq": lambda key, val: lambda tags: tags.get(key) != val,
    "sw": lambda key, val: lambda tags: key in tags and tags[key].startswith(val),
    "ew": lambda key, val: lambda tags: key in tags and tags[key].endswith(val),
    "ct": lambda key, val: lambda tags: key in tags and val in tags[key],
}
_LISTS: Final[Mapping[str, Callable[[str, frozenset[str]], Predicate]]] = {
    "in": lambda key, vals: lambda tags: tags.get(key) in vals,
    "nin": lambda key, vals: lambda tags: tags.get(key) not in vals,
}
_PRESENCE: Final[Mapping[str, Callable[[str], Predicate]]] = {
    "ex": lambda key: lambda tags: key in tags,
    "nex": lambda key: lambda tags: key not in tags,
}
_NUMBERS: Final[Mapping[str, Callable[[Decimal, Decimal], bool]]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def _compare_numbers(key: str, holds: Callable[[Decimal, Decimal], bool], limit: Decimal) -> Predicate:
    def passes(tags: Tags) -> bool:
        number = _number(tags.get(key, ""))
        return number is not None and holds(number, limit)

    return passes


def _number(text: str) -> Decimal | None:
    """The exact number, because floats near 0.1 would be equal. None for a text that is no decimal number."""
    return _parse_number(text) if len(text) <= NUMBER_LENGTH_MAX else None


@lru_cache(NUMBERS_MAX)
def _parse_number(text: str) -> Decimal | None:
    return Decimal(text) if _NUMBER.fullmatch(text) is not None else None


def _listed(words: Mapping[str, object] | tuple[str, ...]) -> str:
    *some, last = words
    return f"{', '.join(some)} or {last}"
