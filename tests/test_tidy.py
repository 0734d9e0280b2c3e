"""House rules that ruff cannot check: sizes, docstrings of tests, and what must never be in the repository."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for path in (ROOT / "src").rglob("*.py") if not path.stem.endswith("_pb2"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

FILE_LINES_MAX = 450
FUNCTION_LINES_MAX = 70
FUNCTION_LINES_USUAL = 40
MEDIAN_FILE_LINES_MAX = 250
LONG_FUNCTIONS_SHARE_MAX = 0.03

PAGES = {".js", ".css", ".html"}
IMAGES = {".png", ".ico"}


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 1
    return (body[-1].end_lineno or 0) - body[0].lineno + 1


@pytest.mark.parametrize("path", SOURCES, ids=identify)
def test_files_are_short(path: Path) -> None:
    """No file has more than `FILE_LINES_MAX` lines."""
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX


@pytest.mark.parametrize("path", TESTS, ids=identify)
def test_test_files_are_short(path: Path) -> None:
    """No file of the tests has more than `FILE_LINES_MAX` lines."""
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX


def test_median_file_is_short() -> None:
    """Half of the files have at most `MEDIAN_FILE_LINES_MAX` lines."""
    lengths = sorted(len(path.read_text().splitlines()) for path in SOURCES)
    assert lengths[len(lengths) // 2] <= MEDIAN_FILE_LINES_MAX


@pytest.mark.parametrize("path", SOURCES, ids=identify)
def test_functions_are_short(path: Path) -> None:
    """No function has more than `FUNCTION_LINES_MAX` lines of code."""
    long = [f"{function.name}: {code_lines(function)}" for function in functions(path)]
    assert [entry for entry in long if int(entry.split(": ")[1]) > FUNCTION_LINES_MAX] == []


def test_long_functions_are_rare() -> None:
    """At most `LONG_FUNCTIONS_SHARE_MAX` of the functions have more than `FUNCTION_LINES_USUAL` lines of code."""
    lengths = [code_lines(function) for path in SOURCES for function in functions(path)]
    long = sum(1 for length in lengths if length > FUNCTION_LINES_USUAL)
    assert long / len(lengths) <= LONG_FUNCTIONS_SHARE_MAX


@pytest.mark.parametrize("path", TESTS, ids=identify)
def test_every_test_has_a_docstring(path: Path) -> None:
    """The docstring states the rule that the test checks. (ruff demands docstrings of all functions, or of none.)"""
    missing = [f.name for f in functions(path) if f.name.startswith("test_") and not ast.get_docstring(f)]
    assert missing == []


def test_unit_tests_never_sleep() -> None:
    """Time is passed in. `asyncio.sleep(0)`, which only gives way to other tasks, is allowed."""
    pattern = re.compile(r"\b(time\.sleep|asyncio\.sleep\((?!0\)))")
    sleepers = [identify(path) for path in (ROOT / "tests" / "unit").rglob("*.py") if pattern.search(path.read_text())]
    assert sleepers == []


def test_no_unfinished_work_and_no_registry_in_the_repository() -> None:
    """Pages have no marks of unfinished work (ruff checks Python), and no file names the host of a package registry."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    marks = re.compile(r"TODO|FIXME|XXX:")
    hosts = re.compile(r"pypi\.org|files\.pythonhosted|registry\.npmjs|deb\.debian\.org")
    for name in filter(None, tracked):
        path = ROOT / name
        if path.suffix in IMAGES or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        assert path.suffix not in PAGES or not marks.search(text), name
        assert name == "tests/test_tidy.py" or not hosts.search(text), name
