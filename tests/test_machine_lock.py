"""The lock that gives quiet tests the machine for themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORKER = """
import sys
from pathlib import Path
from tests.machine_lock import MachineLock
lock, name = MachineLock(Path(sys.argv[1])), sys.argv[2]
print(name, "waits", flush=True)
lock.acquire(exclusive=name == "exclusive")
print(name, "runs", flush=True)
input()
print(name, "ends", flush=True)
lock.release()
input()
"""


def test_an_exclusive_holder_runs_alone(tmp_path: Path) -> None:
    """Two processes share the lock; a third, exclusive one runs after both; a fourth runs after the third.

    A killed process holds up no other.
    """
    reader, writer = os.pipe()
    workers: dict[str, subprocess.Popen[bytes]] = {}

    def start(name: str) -> None:
        command = [sys.executable, "-c", WORKER, str(tmp_path), name]
        workers[name] = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=writer, bufsize=0)

    def end(name: str) -> None:
        stdin = workers[name].stdin
        assert stdin is not None
        stdin.write(b"\n")

    try:
        with os.fdopen(reader) as output:  # of all processes, in the order in which they wrote

            def expect(*lines: str) -> None:
                assert [output.readline().strip() for _ in lines] == list(lines)

            for name in ("first", "second"):
                start(name)
                expect(f"{name} waits", f"{name} runs")
            start("exclusive")
            expect("exclusive waits")
            workers["second"].kill()
            end("first")
            expect("first ends", "exclusive runs")
            start("last")
            expect("last waits")
            end("exclusive")
            expect("exclusive ends", "last runs")
    finally:
        os.close(writer)
        for worker in workers.values():
            worker.kill()
            worker.communicate()
