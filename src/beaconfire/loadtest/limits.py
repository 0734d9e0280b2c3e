"""Checks the limits of this machine before the load test starts: open files per process, and ports to one address."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from beaconfire.loadtest.plan import Plan

_OWN_FILES: Final = 64
"""Files that a worker opens besides its connections, with a reserve."""

_PORT_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def check_limits(plan: Plan) -> None:
    """Raises the soft limit on open files to the number that the plan needs, for this process and its workers.

    Raises ValueError, with the remedy, if a limit of this machine is lower than the plan needs.
    """
    _check_ports(plan.connections, _PORT_RANGE)
    if sys.platform != "win32":
        _raise_open_files(files_needed(plan), plan.connections)


def files_needed(plan: Plan) -> int:
    """The open files of one worker."""
    return len(plan.connections_of(0)) + _OWN_FILES


def _raise_open_files(needed: int, connections: int) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            processes = -(-connections // max(1, hard - _OWN_FILES))
            raise ValueError(
                f"a process may open {hard} files on this machine, but {needed} are needed: "
                f"use --processes {processes} or more, or raise the limit with `ulimit -Hn {needed}` as root"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _check_ports(connections: int, file: Path) -> None:
    try:
        first, last = map(int, file.read_text().split())
    except (OSError, ValueError):
        return  # not Linux: connecting fails with an error if there are too few ports
    if connections > last - first + 1:
        raise ValueError(
            f"this machine has only {last - first + 1} ports for connections to one address: "
            "widen net.ipv4.ip_local_port_range with `sysctl -w net.ipv4.ip_local_port_range='1024 65535'`, "
            "or use several machines"
        )
