"""Bytes that Linux buffers for the connections of a server, also for connections that no process has open any more."""

from __future__ import annotations

from pathlib import Path

_LISTENING = "0A"


def send_queues(port: int) -> list[int]:
    """Bytes in the send queue of each connection of this local port: not sent, or not acknowledged.

    Leaves out empty queues. Includes closed connections whose bytes still wait for their peers.
    """
    queues = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, both_queues, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == port and state != _LISTENING:
            queues.append(int(both_queues.partition(":")[0], 16))
    return [queue for queue in queues if queue]
