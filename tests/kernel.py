"""The send queues of TCP connections, read from Linux, including connections that no process has open any more."""

from __future__ import annotations

from pathlib import Path

_LISTENING = "0A"


def send_queues(port: int) -> list[int]:
    """For each connection of this local port, the bytes that its peer has not acknowledged. Empty queues are left out.

    A connection that the process has closed is included while its bytes wait for the peer.
    """
    queues = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, both_queues, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == port and state != _LISTENING:
            queues.append(int(both_queues.partition(":")[0], 16))
    return [queue for queue in queues if queue]
