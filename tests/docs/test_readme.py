"""The documentation is correct: its blocks run, its links have targets, its translation has the same code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from beaconfire.config import Config
from beaconfire.observe.metric_table import LIMITS
from beaconfire.server.announcement import limits
from tests.docs.pages import ROOT, Block, blocks, broken_links, headings
from tests.docs.stage import Stage, assert_matches

README = ROOT / "README.md"
CHINESE = ROOT / "README.zh-CN.md"
PAGES_WITH_CODE = [
    README,
    *(
        ROOT / "docs" / name
        for name in (
            "quick-start.md",
            "concepts.md",
            "how-to/asgi.md",
            "how-to/authenticate.md",
            "how-to/browser-client.md",
            "how-to/connect-an-sdk.md",
            "how-to/load-test.md",
            "how-to/deploy.md",
            "how-to/recover.md",
            "how-to/save-bytes.md",
            "how-to/scale-limits.md",
            "how-to/write-an-engine.md",
            "operations/troubleshooting.md",
            "protocols/streams.md",
        )
    ),
]
ALL = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=name)
def test_every_block_runs(page: Path, tmp_path: Path) -> None:
    """All blocks of a page run from top to bottom. A block that is not run has a reason."""
    with Stage(tmp_path) as stage:
        for block in blocks(page):
            try:
                stage.run_block(block)
            except Exception as error:
                raise AssertionError(f"{name(page)}:{block.line}: {error}") from error


def test_a_wrong_block_fails(tmp_path: Path) -> None:
    """Failing commands, different output, invalid settings and blocks without a directive fail."""
    wrong = [
        Block(1, "sh", "runs", "beaconfire config check nowhere.toml\n"),
        Block(1, "python", "runs", "raise SystemExit(1)\n"),
        Block(1, "toml", "runs", "[client]\nping_intervall = 1\n"),
        Block(1, "text", "printed", "something\n"),
        Block(1, "sh", "", "true\n"),
        Block(1, "go", "runs", "package main\n"),
        Block(1, "go", "not run", "package main\n"),
    ]
    with Stage(tmp_path) as stage:
        for block in wrong:
            with pytest.raises(Exception, match=r"."):
                stage.run_block(block)


def test_an_ellipsis_matches_any_output() -> None:
    """An ellipsis matches a part of a line, or whole lines."""
    assert_matches("a … c\n…\nend\n", "a b c\nx\ny\nend\n")
    with pytest.raises(AssertionError):
        assert_matches("a … c\nend\n", "a b c\nx\nend\n")


@pytest.mark.parametrize("page", ALL, ids=name)
def test_links_have_targets(page: Path) -> None:
    """The target of every relative link exists, with its anchor."""
    assert broken_links(page) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    """A missing file or heading, and a file outside the repository, are broken links; links in code are ignored."""
    bad = tmp_path / "page.md"
    bad.write_text("# One\n\n[a](#one) [b](#two) [c](missing.md) [d](https://example.com) `[e](f)`\n")
    assert broken_links(bad) == ["#two", "missing.md"]


def test_every_page_is_linked() -> None:
    """The index links to every page, directly or through one other page."""
    docs = ROOT / "docs"
    reached = {docs / "index.md"}
    for _ in range(2):
        for page in list(reached):
            links = re.findall(r"\]\(([^()#\s:]+\.md)", page.read_text(encoding="utf-8"))
            reached |= {target for link in links if (target := (page.parent / link).resolve()).exists()}
    assert {name(page) for page in docs.rglob("*.md") if page not in reached} == set()


def test_every_limit_is_explained() -> None:
    """The page of limits contains each limit that the server announces or counts."""
    page = (ROOT / "docs" / "how-to" / "scale-limits.md").read_text(encoding="utf-8")
    assert [limit for limit in {*(limit for limit, _ in limits(Config())), *LIMITS} if f"`{limit}`" not in page] == []


def test_the_translation_has_the_same_code() -> None:
    """Both readmes have the same heading levels and the same code, and each links to the other."""
    assert [level for level, _ in headings(README)] == [level for level, _ in headings(CHINESE)]
    assert [(b.language, b.text) for b in blocks(README)] == [(b.language, b.text) for b in blocks(CHINESE)]
    assert "(README.zh-CN.md)" in README.read_text(encoding="utf-8")
    assert "(README.md)" in CHINESE.read_text(encoding="utf-8")


def test_architecture_names_files_that_exist() -> None:
    """Each path in code style exists in the repository or in the package. A single name may be that of any file or
    folder of the package."""
    source = ROOT / "src" / "beaconfire"
    names = {f"{path.name}/" if path.is_dir() else path.name for path in source.rglob("*")}
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    paths = re.findall(r"`([a-z_]+(?:/[a-z_]*)*(?:/|\.py|\.js))`", text)
    assert len(paths) > 30
    places = (ROOT, source, source / "session")
    assert [path for path in paths if path not in names and not any((place / path).exists() for place in places)] == []
