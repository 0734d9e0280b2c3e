"""Ends connections so that the kernel keeps no data for them.

The kernel keeps a closed TCP connection until its peer has acknowledged all that was sent. If the peer reads nothing,
the kernel keeps the whole send buffer for minutes, beyond all limits of this server, and delivers stale data if the
peer starts to read again. A reset (RST) drops the buffer and informs the peer at once.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import Final

_DROP_UNSENT: Final = struct.pack("ii", 1, 0)
"""`struct linger` with a time of zero: closing discards unsent data and resets the connection (socket(7))."""

_KERNEL_LATER_S: Final = 1.0
"""How much later than our own timers the kernel acts. A reset by our timers is counted, one by the kernel is not."""

EXTENSION: Final = "beaconfire.reset"
"""The ASGI extension of our HTTP connections: `scope["extensions"][EXTENSION]()` resets the request's connection."""

SENDS_AT_ONCE: Final = "beaconfire.sends_at_once"
"""A further one: `scope["extensions"][SENDS_AT_ONCE]()` tells whether the next `send` will run without suspending."""


def reset(stream: asyncio.Transport) -> None:
    """Ends the connection at once with a reset. For peers that have exceeded a timeout. Idempotent, never raises."""
    _set(stream, socket.SOL_SOCKET, socket.SO_LINGER, _DROP_UNSENT)
    stream.abort()


def abandon_after(stream: asyncio.Transport, timeout_s: float) -> None:
    """Makes the kernel reset the connection if its peer takes no data for `timeout_s` and one second.

    For connections that are closed normally: after that, only the kernel can limit their time. Linux only; other
    systems use their own limit. Never raises.
    """
    if sys.platform == "linux":
        _set(stream, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int((timeout_s + _KERNEL_LATER_S) * 1000))


def _set(stream: asyncio.Transport, level: int, option: int, value: int | bytes) -> None:
    shown = stream.get_extra_info("socket")
    if shown is not None and shown.fileno() >= 0:  # the event loop has not closed it yet
        try:
            shown.setsockopt(level, option, value)
        except OSError:
            pass  # the peer closed the connection first, or it is not TCP
