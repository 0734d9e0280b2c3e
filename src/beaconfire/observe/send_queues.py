"""Measures the kernel's send queues: memory that does not appear in any metric of the process."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sys
import termios
from typing import Final

DESCRIPTORS_PER_TURN: Final = 256
"""Descriptors that are read before the event loop runs other work: one to two milliseconds."""

_STANDARD_DESCRIPTORS: Final = (0, 1, 2)
"""Log lines are written here. They are not for clients, even if a descriptor is a socket or a terminal."""


async def send_queue_bytes() -> int:
    """Bytes in the send queues of all connections of this process: not sent yet, or sent and not acknowledged.

    Reads every open descriptor, because connections that are not slow use this memory, too: 10,000 descriptors take
    about 25 ms of CPU, in slices. Returns 0 on systems other than Linux.
    """
    if sys.platform != "linux":
        return 0
    total = 0
    with os.scandir("/proc/self/fd") as entries:
        for number, entry in enumerate(entries, 1):
            total += _queued_bytes(int(entry.name))
            if number % DESCRIPTORS_PER_TURN == 0:
                await asyncio.sleep(0)
    return total


def _queued_bytes(descriptor: int) -> int:
    """The result of SIOCOUTQ (tcp(7)), which has the number of TIOCOUTQ; 0 if the descriptor is no connection."""
    if descriptor in _STANDARD_DESCRIPTORS:
        return 0
    result = bytearray(4)
    try:
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, result, True)
    except OSError:
        return 0
    return int.from_bytes(result, sys.byteorder)
