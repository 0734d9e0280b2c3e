"""Ending a connection so that nothing of it stays behind in the kernel.

A closed TCP connection lives on in the kernel until its peer has acknowledged all that was sent. A peer that reads
nothing never does: the kernel keeps the whole send buffer for minutes, beyond every limit of ours, and delivers stale
data to a peer that begins to read again. A reset (RST) drops the buffer and tells the peer at once.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import Final

_DROP_UNSENT: Final = struct.pack("ii", 1, 0)
"""`struct linger` with a time of zero: closing discards what is unsent and resets the connection (socket(7))."""

_KERNEL_LATER_S: Final = 1.0
"""How much later than our own timers the kernel acts: what they end is counted, and what it ends is not."""

EXTENSION: Final = "beaconfire.reset"
"""The ASGI extension of our HTTP connections: `scope["extensions"][EXTENSION]()` resets the request's connection."""


def reset(stream: asyncio.Transport) -> None:
    """Ends the connection at once with a reset: for peers that were given their time. Idempotent, never raises."""
    _set(stream, socket.SOL_SOCKET, socket.SO_LINGER, _DROP_UNSENT)
    stream.abort()


def abandon_after(stream: asyncio.Transport, timeout_s: float) -> None:
    """Has the kernel reset the connection if its peer takes nothing for so long and a second, also once it is closed.

    For connections that end politely: once they are closed only the kernel knows of them. Systems other than Linux
    have a time of their own. Never raises.
    """
    if sys.platform == "linux":
        _set(stream, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int((timeout_s + _KERNEL_LATER_S) * 1000))


def _set(stream: asyncio.Transport, level: int, option: int, value: int | bytes) -> None:
    shown = stream.get_extra_info("socket")
    if shown is not None and shown.fileno() >= 0:  # the event loop has not closed it yet
        try:
            shown.setsockopt(level, option, value)
        except OSError:
            pass  # the peer was faster, or it is no TCP connection
