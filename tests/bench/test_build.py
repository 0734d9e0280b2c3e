"""C sources are compiled into a cache that several processes share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.processes import ROOT


def test_sources_are_compiled_once(tmp_path: Path) -> None:
    """Also if several processes need the program at the same time; all of them get the complete program."""
    (tmp_path / "main.c").write_text("int main(void) { return 7; }")
    compiler = tmp_path / "bin" / "cc"
    compiler.parent.mkdir()
    compiler.write_text(f'#!/bin/sh\necho ran >> {tmp_path}/runs\nPATH={os.environ["PATH"]} exec cc "$@"\n')
    compiler.chmod(0o755)
    script = (
        "import sys, bench.load.build as build; from pathlib import Path; folder = Path(sys.argv[1]);"
        "build.CACHE = folder / 'cache'; print(build.compile_sources('seven', [folder / 'main.c']))"
    )
    environment = os.environ | {"PATH": f"{compiler.parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-c", script, str(tmp_path)]
    options: dict[str, Any] = {"cwd": ROOT, "env": environment, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **options) for _ in range(3)]
    programs = {process.communicate(timeout=30)[0].strip() for process in processes}
    assert (tmp_path / "runs").read_text() == "ran\n"
    assert [subprocess.run([program], check=False, timeout=10).returncode for program in programs] == [7]
