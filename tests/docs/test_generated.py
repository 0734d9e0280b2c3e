"""The generated reference pages say what the tables in the code say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("beaconfire_docs_script", ROOT / "scripts" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_current(docs: ModuleType) -> None:
    """Whoever changes a setting, code, metric or command runs `make docs` too."""
    assert docs.stale_pages() == []


def test_a_stale_or_missing_page_is_noticed(
    docs: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` fails and names the pages, writing nothing; without it they are written."""
    assert docs.main(["--check"], tmp_path) == 1
    assert list(tmp_path.iterdir()) == []
    assert docs.main([], tmp_path) == 0
    assert docs.main(["--check"], tmp_path) == 0
    (tmp_path / "codes.md").write_text("old", encoding="utf-8")
    capsys.readouterr()
    assert docs.main(["--check"], tmp_path) == 1
    assert capsys.readouterr().err == "docs/reference/codes.md is stale; run `make docs`\n"


def test_pages_do_not_depend_on_the_terminal(docs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same text comes out whatever the width and colours of the terminal are."""
    expected = docs.pages()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert docs.pages() == expected
