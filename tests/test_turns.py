"""Tests that must be alone are, and the others are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORKER = """
import sys
from pathlib import Path
from tests.turns import Turn
turn, name = Turn(Path(sys.argv[1])), sys.argv[2]
print(name, "waits", flush=True)
turn.begin(alone=name == "alone")
print(name, "runs", flush=True)
input()
print(name, "ends", flush=True)
turn.end()
input()
"""


def test_who_must_be_alone_is(tmp_path: Path) -> None:
    """Two run beside each other; a third is alone after both; a fourth comes after it; and the dead hold up nobody."""
    reader, writer = os.pipe()
    workers: dict[str, subprocess.Popen[bytes]] = {}

    def begin(name: str) -> None:
        command = [sys.executable, "-c", WORKER, str(tmp_path), name]
        workers[name] = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=writer, bufsize=0)

    def end(name: str) -> None:
        stdin = workers[name].stdin
        assert stdin is not None
        stdin.write(b"\n")

    try:
        with os.fdopen(reader) as said:  # by all of them, in the order in which they said it

            def hear(*expected: str) -> None:
                assert [said.readline().strip() for _ in expected] == list(expected)

            for name in ("first", "second"):
                begin(name)
                hear(f"{name} waits", f"{name} runs")
            begin("alone")
            hear("alone waits")
            workers["second"].kill()
            end("first")
            hear("first ends", "alone runs")
            begin("last")
            hear("last waits")
            end("alone")
            hear("alone ends", "last runs")
    finally:
        os.close(writer)
        for worker in workers.values():
            worker.kill()
            worker.communicate()
