"""A worker process: `python -m beaconfire.loadtest`, started by the campaign and by nobody else."""

from __future__ import annotations

import logging
import sys
import time

from beaconfire.loadtest.worker import work

if sys.platform == "win32":
    from asyncio import run
else:
    from uvloop import run


if __name__ == "__main__":
    logging.getLogger("picows").setLevel(logging.CRITICAL)  # what goes wrong with a connection is counted, not logged
    run(work(time.monotonic_ns))
