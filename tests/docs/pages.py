"""Pages of documentation as their tests need them: code blocks with what is to be done with each, links, headings.

Every fenced block has an HTML comment on the line before it, its directive:

    <!-- runs -->                     sh, python and js (in a browser) are run, toml is loaded, json parsed
    <!-- runs: serve -->              starts the server with this command's file and --set flags; it stays until the end
    <!-- runs: node -->               js, in Node instead of a browser
    <!-- runs: in terminal ann -->    sh, and goes on running while the next blocks do
    <!-- writes: follow.py -->        the block becomes a file of that name
    <!-- typed in terminal ann -->    what somebody types there
    <!-- printed -->                  what the block before printed; … stands for anything
    <!-- printed in terminal ann -->  lines that appear there, or in the terminal called browser; … as above
    <!-- not run: why -->             everything else, with the reason
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
    """A fenced block. `line` is where its fence stands; `directive` is empty if there is none."""

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
    """The text without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def headings(page: Path) -> list[tuple[int, str]]:
    """Level and text of every heading."""
    return [(len(level), text.strip()) for level, text in _HEADING.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """What can stand after # in a link to this page, as GitHub makes it from headings."""
    found: set[str] = set()
    for _, heading in headings(page):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
        number = sum(1 for known in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", known))
        found.add(f"{slug}-{number}" if number else slug)
    return found


def relative_links(page: Path) -> list[str]:
    """Links to files of this repository and to places within a page."""
    targets = [first or second for first, second in _LINK.findall(re.sub(r"`[^`\n]*`", "", prose(page)))]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def broken_links(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
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
