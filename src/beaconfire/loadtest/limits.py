"""What this machine lets one program do, looked at before it is tried: open files, and ports to one address."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from beaconfire.loadtest.plan import Plan

_OWN_FILES: Final = 64
"""What a worker opens besides its connections, generously."""

_PORT_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def check(plan: Plan) -> None:
    """Raises the limit of open files as far as the plan needs, for this process and the workers it will start.

    Raises ValueError, with the remedy, if the machine does not allow what the plan needs.
    """
    _check_ports(plan.connections, _PORT_RANGE)
    if sys.platform != "win32":
        _raise_open_files(files_needed(plan), plan.connections)


def files_needed(plan: Plan) -> int:
    """Of one worker."""
    return len(plan.connections_of(0)) + _OWN_FILES


def _raise_open_files(needed: int, connections: int) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            processes = -(-connections // max(1, hard - _OWN_FILES))
            raise ValueError(
                f"one process may open {hard} files here, and {needed} are needed: "
                f"give --processes {processes} or more, or raise the limit with `ulimit -Hn {needed}` as root"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def _check_ports(connections: int, file: Path) -> None:
    try:
        first, last = map(int, file.read_text().split())
    except (OSError, ValueError):
        return  # no Linux: then the kernel will say so itself
    if connections > last - first + 1:
        raise ValueError(
            f"this machine has {last - first + 1} ports for connections to one address: "
            "widen net.ipv4.ip_local_port_range with `sysctl -w net.ipv4.ip_local_port_range='1024 65535'`, "
            "or use several machines"
        )
