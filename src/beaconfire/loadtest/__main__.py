"""A worker process: `python -m beaconfire.loadtest`. Only `worker_processes` starts it."""

from __future__ import annotations

import logging
import sys
import time

from beaconfire.loadtest.worker import run_worker

if sys.platform == "win32":
    from asyncio import run
else:
    from uvloop import run


if __name__ == "__main__":
    logging.getLogger("picows").setLevel(logging.CRITICAL)  # connection failures are counted, not logged
    run(run_worker(time.monotonic_ns))
