"""Compiles the load programs."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.processes import CACHE

HERE = Path(__file__).parent
FLAGS = ("-O2", "-flto", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE")
"""Link-time optimisation halves the time of reading frames and marks, which runs for each delivery."""


def compile_sources(name: str, sources: Sequence[Path], flags: Sequence[str] = ()) -> Path:
    """Compiles C sources to an optimised program in the cache, if a source or a header in the same folder has changed.

    Needs cc. Raises `subprocess.CalledProcessError` if cc fails; its messages are on standard error.
    """
    program = CACHE / name
    headers = [header for folder in {source.parent for source in sources} for header in folder.glob("*.h")]
    changed_s = max(path.stat().st_mtime for path in (*sources, *headers, Path(__file__)))
    CACHE.mkdir(parents=True, exist_ok=True)
    with program.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed; a second process waits and then finds the program
        if not program.exists() or program.stat().st_mtime < changed_s:
            new = program.with_suffix(".new")  # another benchmark may be running the old program
            subprocess.run(["cc", *FLAGS, *flags, "-o", str(new), *map(str, sources), "-lm"], check=True)
            new.replace(program)
    return program
