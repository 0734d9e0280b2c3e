"""Filters over tags: their meaning, their validation, and sharing."""

from __future__ import annotations

import gc

import pytest

from beaconfire.delivery.tags_filter import (
    DEPTH_MAX,
    NUMBER_LENGTH_MAX,
    NUMBERS_MAX,
    FilterError,
    TagsFilters,
    _parse_number,
)
from beaconfire.model.requests import FilterNode

FILTERS = TagsFilters(nodes_max=20, values_max=20)


def leaf(cmp: str, val: str = "", *vals: str, key: str = "k") -> FilterNode:
    return FilterNode(key=key, cmp=cmp, val=val, vals=list(vals))


def branch(op: str, *nodes: FilterNode) -> FilterNode:
    return FilterNode(op=op, nodes=list(nodes))


TRUE, FALSE = leaf("nex", key="none"), leaf("ex", key="none")


@pytest.mark.parametrize(
    ("node", "passed", "stopped"),
    [
        (leaf("eq", "a"), ["a"], ["b", "", None]),
        (leaf("eq"), [""], ["b", None]),
        (leaf("neq", "a"), ["b", "", None], ["a"]),
        (leaf("sw", "ab"), ["ab", "abc"], ["a", "cab", None]),
        (leaf("ew", "ab"), ["ab", "cab"], ["b", "abc", None]),
        (leaf("ct", "ab"), ["ab", "xaby"], ["ba", None]),
        (leaf("in", "", "a", "b"), ["a", "b"], ["c", "", None]),
        (leaf("nin", "", "a", "b"), ["c", "", None], ["a", "b"]),
        (leaf("ex"), ["a", ""], [None]),
        (leaf("nex"), [None], ["a", ""]),
        (leaf("gt", "10"), ["11", "10.5", "1000000000000000000000000000"], ["10", "9", "x", "", None]),
        (leaf("gte", "0.1"), ["0.1", "0.10", "+.2"], ["0.09999999999999999999", "nan", "1e9", None]),
        (leaf("lt", "-1"), ["-2", "-1.1"], ["-1", "0", "-inf", None]),
        (leaf("lte", "5."), ["5", "4"], ["5.1", "5 ", "٤", "1" * (NUMBER_LENGTH_MAX + 1), None]),
        (branch("and", leaf("ex"), leaf("neq", "a")), ["b"], ["a", None]),
        (branch("or", leaf("eq", "a"), leaf("eq", "b")), ["a", "b"], ["c", None]),
        (branch("not", leaf("eq", "a")), ["b", None], ["a"]),
        (branch("not", branch("or", leaf("nex"), leaf("eq", ""))), ["b"], ["", None]),
    ],
)
def test_operators_of_filters(node: FilterNode, passed: list[str | None], stopped: list[str | None]) -> None:
    """The table of section 12. None is a publication without the tag, with or without other tags."""
    tags_filter = FILTERS.compile(node)
    for value in (*passed, *stopped):
        tags = {"other": "a"} if value is None else {"k": value, "other": "b"}
        assert tags_filter.passes(tags) is (value in passed), value
    assert tags_filter.passes(None) is tags_filter.passes({}) is (None in passed)


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (FilterNode(), "tags_filter.key: expected the name of a tag"),
        (leaf(""), "tags_filter.cmp: expected eq, neq"),
        (leaf("like", "a"), "nin, ex, nex, gt, gte, lt or lte"),
        (leaf("eq", "a", "b"), "tags_filter.vals: only in and nin"),
        (leaf("in"), "in takes vals"),
        (leaf("nin", "a", "b"), "nin takes vals, at least one, and no val"),
        (leaf("ex", "a"), "tags_filter.val: ex takes none"),
        (leaf("gt", "ten"), "tags_filter.val: expected a decimal number"),
        (leaf("lt"), "tags_filter.val: expected a decimal number"),
        (FilterNode(key="k", cmp="eq", nodes=[TRUE]), "tags_filter.op: expected and, or or not, because there are"),
        (branch("xor", TRUE, TRUE), "tags_filter.op: expected and, or or not"),
        (branch("and"), "tags_filter.nodes: expected at least one"),
        (branch("not", TRUE, TRUE), "tags_filter.nodes: expected exactly one"),
        (FilterNode(op="and", key="k", nodes=[TRUE]), "tags_filter: a node with an op compares nothing"),
        (branch("or", TRUE, branch("and", TRUE, leaf("??"))), "tags_filter.nodes[1].nodes[1].cmp: expected"),
    ],
)
def test_invalid_filter_is_refused_with_a_reason(node: FilterNode, text: str) -> None:
    """The reason names the path of the node."""
    with pytest.raises(FilterError) as caught:
        FILTERS.compile(node)
    assert text in str(caught.value)
    assert caught.value.limit == ""


def nested(depth: int) -> FilterNode:
    node = TRUE
    for _ in range(depth - 1):
        node = branch("not", node)
    return node


@pytest.mark.parametrize(
    ("largest", "too_large", "limit"),
    [
        (branch("and", *[TRUE] * 19), branch("and", *[TRUE] * 20), "client.tags_filter_max_nodes"),
        (
            branch("or", leaf("in", "", *"a" * 10), leaf("in", "", *"a" * 10)),
            branch("or", leaf("in", "", *"a" * 10), leaf("in", "", *"a" * 11)),
            "client.tags_filter_max_values",
        ),
        (nested(DEPTH_MAX), nested(DEPTH_MAX + 1), "tags_filter_depth_max"),
    ],
)
def test_size_of_a_filter_is_bounded(largest: FilterNode, too_large: FilterNode, limit: str) -> None:
    """The limit is exact, and the error has the name of the limit."""
    FILTERS.compile(largest)
    with pytest.raises(FilterError) as caught:
        FILTERS.compile(too_large)
    assert caught.value.limit == limit


def test_very_deep_filter_is_refused_without_recursion() -> None:
    """The depth is measured without recursion."""
    with pytest.raises(FilterError):
        TagsFilters(10**6, 0).compile(nested(5000))


def test_equal_filters_are_one_object() -> None:
    """It is dropped with its last user."""
    filters = TagsFilters(10, 10)
    one, same, other = (filters.compile(leaf("eq", val)) for val in ("a", "a", "b"))
    assert one is same
    assert one is not other
    del one, same, other
    gc.collect()
    assert len(filters) == 0


def test_cache_of_parsed_numbers_is_bounded() -> None:
    """Tags come from publishers: many different or long texts must not fill the memory."""
    tags_filter = TagsFilters(10, 10).compile(FilterNode(key="price", cmp="gt", val="5"))
    for number in range(3 * NUMBERS_MAX):
        assert tags_filter.passes({"price": f"{number}.5"}) == (number >= 5)
        assert not tags_filter.passes({"price": "9" * (NUMBER_LENGTH_MAX + 1 + number % 7)})
    assert _parse_number.cache_info().currsize <= NUMBERS_MAX
    before = _parse_number.cache_info().misses
    assert not tags_filter.passes({"price": "8" * 10_000})
    assert _parse_number.cache_info().misses == before
