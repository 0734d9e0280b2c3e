"""Compiles the load programs."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.processes import CACHE

HERE = Path(__file__).parent
FLAGS = ("-O2", "-flto", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE")
"""Optimised across files: what reads frames and marks runs for each delivery, and takes half the time so."""


def compile_sources(name: str, sources: Sequence[Path], flags: Sequence[str] = ()) -> Path:
    """An optimised program of C sources, in the cache; compiled anew if they changed, or a header beside them.

    Needs cc. Raises `subprocess.CalledProcessError` if it refuses, having said why on stderr.
    """
    program = CACHE / name
    headers = [header for folder in {source.parent for source in sources} for header in folder.glob("*.h")]
    changed_s = max(path.stat().st_mtime for path in (*sources, *headers, Path(__file__)))
    CACHE.mkdir(parents=True, exist_ok=True)
    with program.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed: a second process then finds the program
        if not program.exists() or program.stat().st_mtime < changed_s:
            fresh = program.with_suffix(".fresh")  # another benchmark may be running the old one
            subprocess.run(["cc", *FLAGS, *flags, "-o", str(fresh), *map(str, sources), "-lm"], check=True)
            fresh.replace(program)
    return program
