"""The generated reference pages are equal to the tables in the code."""

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
    """After a change of a setting, code, metric or command, run `make docs`."""
    assert docs.stale_pages() == []


def test_a_stale_or_missing_page_fails_the_check(
    docs: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` fails, names the pages and writes nothing; without it the pages are written."""
    assert docs.main(["--check"], tmp_path) == 1
    assert list(tmp_path.iterdir()) == []
    assert docs.main([], tmp_path) == 0
    assert docs.main(["--check"], tmp_path) == 0
    (tmp_path / "codes.md").write_text("old", encoding="utf-8")
    capsys.readouterr()
    assert docs.main(["--check"], tmp_path) == 1
    assert capsys.readouterr().err == "docs/reference/codes.md is stale; run `make docs`\n"


def test_pages_do_not_depend_on_the_terminal(docs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text does not depend on the width and colours of the terminal."""
    expected = docs.pages()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert docs.pages() == expected
