"""Installs peers of pinned versions with the ordinary clients of their registries, each into its own folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

from bench.peers.base import INSTALLED
from bench.processes import ROOT

_console = Console(stderr=True)


def go_program(name: str, sources: Path, package: str = ".") -> None:
    """Builds a Go package of the module in `sources` as `<name>/<name>`. Raises RuntimeError without Go."""
    _need("go", "on Debian: golang, or a newer one from the Go project")

    def build(folder: Path) -> None:
        # Without version control stamps: they would make the build depend on the state of this checkout.
        _run("go", "build", "-C", str(sources), "-mod=readonly", "-buildvcs=false", "-o", str(folder / name), package)

    _once(name, [path for path in sources.iterdir() if path.suffix in {".go", ".mod", ".sum"}], build)


def node_packages(name: str, sources: Path) -> None:
    """Installs the locked packages of `sources` and copies its programs to the same folder.

    Scripts of packages are not run; native add-ons are prebuilt binaries. Raises RuntimeError without npm.
    """
    _need("npm", "on Debian: apt-get install nodejs npm")
    files = [path for path in sources.iterdir() if path.suffix in {".js", ".json"}]

    def install(folder: Path) -> None:
        for file in files:
            shutil.copy(file, folder)
        _run("npm", "ci", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", "--silent")

    _once(name, files, install)


def virtual_environment(name: str, requirements: Path) -> None:
    """Creates the virtual environment `<name>` with exactly `requirements` and the Python that runs this program."""
    local = ROOT / ".tools" / "bin" / "uv"
    uv = shutil.which("uv") or (str(local) if local.exists() else None)

    def install(folder: Path) -> None:
        python = str(folder / "bin" / "python")
        if uv is None:
            _run(sys.executable, "-m", "venv", str(folder))
            _run(python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(requirements))
        else:
            _run(uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder))
            _run(uv, "pip", "sync", "--quiet", "--python", python, str(requirements))

    _once(name, [requirements], install)


def debian_package(package: str, program: str) -> None:
    """Installs a Debian package if its program is missing. Raises RuntimeError with the command if that needs root."""
    if shutil.which(program):
        return
    command = f"apt-get update && apt-get install -y --no-install-recommends {package}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise RuntimeError(f"{program} is missing; on Debian: sudo sh -c '{command}'")
    _console.print(f"installing {package}")
    _run("apt-get", "update", "-qq")
    _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", package)


def _once(name: str, sources: Iterable[Path], make: Callable[[Path], None]) -> None:
    """Empties the peer's folder and calls `make` with it, if the folder was not made from the same sources."""
    folder = INSTALLED / name
    stamp = folder / ".made-from"
    digest = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in sorted(sources))).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    _console.print(f"installing {name} into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make(folder)
    stamp.write_text(digest)  # last, so that an installation that failed is repeated


def _need(program: str, remedy: str) -> None:
    if shutil.which(program) is None:
        raise RuntimeError(f"{program} is missing; {remedy}")


def _run(*command: str) -> None:
    # The output of package clients goes to standard error, because ours may contain data.
    if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2, check=False).returncode:
        raise RuntimeError(f"failed: {' '.join(command)}")
