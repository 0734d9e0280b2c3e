"""The patterns of allowed origins."""

from __future__ import annotations

import itertools
import re
import time

import pytest

from beaconfire.transports.origins import ORIGIN_LENGTH_MAX, OriginRules


@pytest.mark.parametrize(
    ("patterns", "origin", "allowed"),
    [
        ([], None, True),
        ([], "https://a.example", False),
        (["https://a.example"], "https://a.example", True),
        (["https://a.example"], "HTTPS://A.Example", True),
        (["HTTPS://A.EXAMPLE"], "https://a.example", True),
        (["https://a.example"], "http://a.example", False),
        (["https://a.example"], "https://a.example:8443", False),
        (["https://a.example"], "https://axexample", False),
        (["https://a.example"], "https://a.example.evil.org", False),
        (["https://a.example"], "evilhttps://a.example", False),
        (["https://*.example"], "https://a.b.example", True),
        (["https://*.example"], "https://example", False),
        (["https://*.example"], "https://evil.org/.example", False),
        (["http://localhost:*"], "http://localhost:3000", True),
        (["*://a.example"], "https://a.example", True),
        (["https://a?.example"], "https://a1.example", True),
        (["https://a?.example"], "https://a.example", False),
        (["https://[a].example"], "https://a.example", False),
        (["https://a.example", "https://b.example"], "https://b.example", True),
        (["https://a.example", "https://b.example"], "https://a.example, https://b.example", False),
        (["*"], "https://a.example, https://b.example", False),
        (["https://a.example"], "", False),
        (["https://a.example"], "null", False),
        (["https://a.example", "*"], "null", True),
    ],
)
def test_pattern_is_matched_against_the_whole_origin(patterns: list[str], origin: str | None, allowed: bool) -> None:
    """In lower case; wildcards match no slash. A missing header is allowed, two headers never are."""
    assert OriginRules(patterns).allow(origin) is allowed


def test_long_origin_is_not_matched() -> None:
    """Several wildcards would need seconds to reject a long header."""
    rules = OriginRules(["https://*.*.example"])
    longest = "https://a." + "b" * (ORIGIN_LENGTH_MAX - len("https://a..example")) + ".example"
    assert len(longest) == ORIGIN_LENGTH_MAX
    assert rules.allow(longest)
    assert not rules.allow(longest.replace("a.", "aa."))
    assert not rules.allow("https://" + "." * 32_000 + ".a.example")
    assert OriginRules(["*"]).allow("https://" + "." * 32_000)


def test_many_wildcards_are_matched_quickly() -> None:
    """With full backtracking, four wildcards would take 16 seconds for an origin that nearly matches."""
    rules = OriginRules(["https://*.*.*.*.*.*.example.com"])
    started_s = time.process_time()
    for part in (".", "a.", ".example.com"):
        assert not rules.allow("https://" + part * (500 // len(part)) + "x")
    assert rules.allow("https://" + "a." * 200 + "example.com")
    assert time.process_time() - started_s < 1


def test_wildcards_match_as_with_full_backtracking() -> None:
    """A third of all short patterns, with all short origins, compared with a simple translation of the pattern."""
    wildcards = {"*": "[^/]*", "?": "[^/]"}
    patterns = ["".join(each) for size in range(1, 6) for each in itertools.product("ab/*?", repeat=size)]
    origins = ["".join(each) for size in range(6) for each in itertools.product("ab/", repeat=size)]
    text = "\n".join(origins)
    for pattern in patterns[::3]:
        if pattern == "*":
            continue
        plain = "".join(wildcards.get(character, character) for character in pattern)
        expected = set(re.findall(f"^{plain}$".replace("[^/]", "[^/\n]"), text, re.MULTILINE))
        rules = OriginRules([pattern])
        assert {origin for origin in origins if rules.allow(origin)} == expected, pattern
