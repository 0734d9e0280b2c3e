"""Sends many frames to as many sockets in one call: the innermost loop of fan-out, which runs no Python code."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from beaconfire.delivery.outbox import Writable

_SEND: Final = socket.socket.send
_SOCKET: Final = attrgetter("direct")


def send_all(transports: Sequence[Writable], frames: Sequence[bytes]) -> list[int]:
    """Sends each frame to the `direct` socket of its transport. Returns how many bytes of each frame were taken.

    No `direct` may be None. A full or broken socket takes no bytes: its transport finds out which, and reports it.
    `map` and `extend` loop in C, and both continue after an exception at the next item.
    """
    taken: list[int] = []
    sending = map(_SEND, map(_SOCKET, transports), frames)
    while len(taken) < len(frames):
        try:
            taken.extend(sending)
        except OSError:
            taken.append(0)
    return taken
