"""House rules that can be checked: sizes, docstrings, forbidden calls, and what must never be in the repository."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for path in (ROOT / "src").rglob("*.py") if not path.stem.endswith("_pb2"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
FUNCTION_LINES_USUAL = 40
MEDIAN_FILE_LINES_MAX = 250
LONG_FUNCTIONS_SHARE_MAX = 0.03

FORBIDDEN_CALLS = {
    "print": "use the log, or the console of the command line",
    "eval": "never",
    "exec": "never",
    "breakpoint": "left over from debugging",
}
PRINTING_ALLOWED = ("cli",)


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
def test_files_can_be_read_in_one_sitting(path: Path) -> None:
    """No file is longer than a sitting, and each begins with what it is for."""
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES_MAX
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "a module starts with its purpose"


def test_files_are_usually_short() -> None:
    """The median file is a few screens."""
    lengths = sorted(len(path.read_text().splitlines()) for path in SOURCES)
    assert lengths[len(lengths) // 2] <= MEDIAN_FILE_LINES_MAX


@pytest.mark.parametrize("path", SOURCES, ids=identify)
def test_functions_are_short(path: Path) -> None:
    """70 lines is the wall."""
    long = [f"{function.name}: {code_lines(function)}" for function in functions(path)]
    assert [entry for entry in long if int(entry.split(": ")[1]) > FUNCTION_LINES_MAX] == []


def test_long_functions_are_rare() -> None:
    """Nearly all functions fit on a screen."""
    lengths = [code_lines(function) for path in SOURCES for function in functions(path)]
    long = sum(1 for length in lengths if length > FUNCTION_LINES_USUAL)
    assert long / len(lengths) <= LONG_FUNCTIONS_SHARE_MAX


@pytest.mark.parametrize("path", SOURCES, ids=identify)
def test_no_forbidden_calls(path: Path) -> None:
    """What only belongs elsewhere is not called here."""
    if any(part in PRINTING_ALLOWED for part in path.parts):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN_CALLS, f"line {node.lineno}: {FORBIDDEN_CALLS[node.func.id]}"
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"line {node.lineno}: bare except"


@pytest.mark.parametrize("path", TESTS, ids=identify)
def test_every_test_says_what_must_hold(path: Path) -> None:
    """A test's docstring is its claim."""
    missing = [f.name for f in functions(path) if f.name.startswith("test_") and not ast.get_docstring(f)]
    assert missing == []


def test_unit_tests_never_sleep() -> None:
    """Time is passed in; whoever sleeps hopes."""
    pattern = re.compile(r"\b(time\.sleep|asyncio\.sleep\((?!0\)))")
    sleepers = [identify(path) for path in (ROOT / "tests" / "unit").rglob("*.py") if pattern.search(path.read_text())]
    assert sleepers == []


def test_nothing_unfinished_is_committed() -> None:
    """No marks of unfinished work, and no package registry is named."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    marks = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX:")))
    hosts = re.compile("|".join((r"pypi\.org", r"files\.pythonhosted", r"registry\.npmjs", r"deb\.debian\.org")))
    for name in filter(None, tracked):
        path = ROOT / name
        if path.suffix in {".png", ".ico"} or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if path.suffix in {".py", ".js", ".css", ".html"}:
            assert not marks.search(text), name
        assert name == "tests/test_tidy.py" or not hosts.search(text), name
