"""`python -m beaconfire.cli.child SEAT`: one process of `beaconfire serve --workers N`, which the supervisor starts.

Everybody else uses `beaconfire serve`. This program needs no command line and no terminal, so it starts faster, and the
time to start is the time without a hub or worker after one was killed.
"""

from __future__ import annotations

import os
import sys

from beaconfire.base.errors import BeaconfireError
from beaconfire.config import load
from beaconfire.server.workers.seat import Seat


def main(argument: str) -> int:
    """Runs the process with this seat. Returns the exit code."""
    seat = Seat.decode(argument)
    try:
        return _run(seat)
    except (BeaconfireError, OSError) as error:
        from beaconfire.cli.console import report

        return report(error)


def _run(seat: Seat) -> int:
    """The imports are here because the hub does not need what a worker needs."""
    config = load(seat.config_file, os.environ, seat.overrides)
    if seat.slot is None:
        from beaconfire.server.workers.hub_process import run_hub

        return run_hub(config, seat)
    from beaconfire.server.workers.worker_process import run_worker

    return run_worker(config, seat)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
