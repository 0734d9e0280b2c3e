"""Type checkers of users accept the programs of this folder, and reject the lines that are marked as wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache" / "mypy-typing"
PYRIGHT = HERE / "node_modules" / "pyright" / "index.js"
PROGRAMS = sorted(path for path in HERE.glob("*.py") if path != Path(__file__))


def test_mypy_agrees(tmp_path: Path) -> None:
    """mypy finds the types of the installed package by its `py.typed`: no configuration names the source folder."""
    options = ("--strict", "--config-file=", f"--cache-dir={CACHE}", "--python-version=3.11")
    check(tmp_path, sys.executable, "-m", "mypy", *options, *map(str, PROGRAMS))


def test_pyright_agrees(tmp_path: Path) -> None:
    """pyright does the same in its strict mode. `scripts/services` installs pyright."""
    check(tmp_path, "node", str(PYRIGHT), f"--project={HERE}", f"--pythonpath={sys.executable}")


def check(folder: Path, *command: str) -> None:
    """Runs a type checker in this folder, without the environment variables that change where it finds modules."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MYPYPATH", "PYTHONPATH")}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stdout + result.stderr
