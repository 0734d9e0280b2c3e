"""Exclusive tests run alone, and shared ones in parallel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORKER = """
import sys
from pathlib import Path
from tests.readers_writer_lock import ReadersWriterLock
lock, name = ReadersWriterLock(Path(sys.argv[1])), sys.argv[2]
print(name, "waits", flush=True)
lock.acquire(exclusive=name == "exclusive")
print(name, "runs", flush=True)
input()
print(name, "ends", flush=True)
lock.release()
input()
"""


def test_an_exclusive_holder_waits_for_shared_ones_and_blocks_later_ones(tmp_path: Path) -> None:
    """Two shared holders run in parallel, then an exclusive one runs alone, and then a later shared one runs.

    A process that was killed holds no lock.
    """
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
        with os.fdopen(reader) as output:  # the lines of all workers, in the order in which they printed them

            def expect(*lines: str) -> None:
                assert [output.readline().strip() for _ in lines] == list(lines)

            for name in ("first", "second"):
                begin(name)
                expect(f"{name} waits", f"{name} runs")
            begin("exclusive")
            expect("exclusive waits")
            workers["second"].kill()
            end("first")
            expect("first ends", "exclusive runs")
            begin("last")
            expect("last waits")
            end("exclusive")
            expect("exclusive ends", "last runs")
    finally:
        os.close(writer)
        for worker in workers.values():
            worker.kill()
            worker.communicate()
