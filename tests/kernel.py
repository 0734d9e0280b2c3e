"""What the kernel holds of a server's connections, as Linux says: also of those that no process has any more."""

from __future__ import annotations

from pathlib import Path

_LISTENING = "0A"


def send_queues(port: int) -> list[int]:
    """Bytes that each connection from this local port has yet to send or to have acknowledged; those with none aside.

    Connections that are closed, and whose bytes are still waiting for their peers, are among them.
    """
    queues = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, both_queues, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == port and state != _LISTENING:
            queues.append(int(both_queues.partition(":")[0], 16))
    return [queue for queue in queues if queue]
