"""Parses the documentation for the tests: code blocks with their directives, links, headings.

Every fenced block has a directive, an HTML comment on the line before:

    <!-- runs -->                     runs sh, python and js (in a browser), loads toml, parses json
    <!-- runs: serve -->              starts the server with the command's file and --set flags
    <!-- runs: node -->               runs js in Node instead of a browser
    <!-- runs: in terminal ann -->    runs sh in the background, while the next blocks run
    <!-- writes: follow.py -->        writes the block to a file of that name
    <!-- typed in terminal ann -->    input for this terminal
    <!-- printed -->                  the output of the previous block; … matches anything
    <!-- printed in terminal ann -->  lines in this terminal, or in the browser's console; … as above
    <!-- not run: why -->             is not run, with the reason
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"(?:^<!-- (?P<directive>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
_LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(([^()\s]+)\)|<(?:a|img)[^>]* (?:href|src)=\"([^\"]+)\"")
_HEADING = re.compile(r"^(#{1,6}) (.+)$", re.M)


class Block(NamedTuple):
    """A fenced block. `line` is the line number of its fence; `directive` is empty if there is none."""

    line: int
    language: str
    directive: str
    text: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, match.start("text")), match["language"], match["directive"] or "", match["text"])
        for match in _FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """The text of a page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def headings(page: Path) -> list[tuple[int, str]]:
    """The level and text of every heading."""
    return [(len(level), text.strip()) for level, text in _HEADING.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """The anchors of a page, as GitHub generates them from headings."""
    found: set[str] = set()
    for _, heading in headings(page):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
        number = sum(1 for known in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", known))
        found.add(f"{slug}-{number}" if number else slug)
    return found


def relative_links(page: Path) -> list[str]:
    """Links to files of this repository and to anchors."""
    targets = [first or second for first, second in _LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page)))]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def broken_links(page: Path) -> list[str]:
    """Relative links of a page without a target."""
    broken = []
    for link in relative_links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if (
            not target.exists()
            or (page.is_relative_to(ROOT) and not target.is_relative_to(ROOT))
            or (anchor and target.suffix == ".md" and anchor not in anchors(target))
        ):
            broken.append(link)
    return broken
