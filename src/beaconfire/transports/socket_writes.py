"""Many frames to as many sockets in one go: the innermost loop of fan-out, and no Python in it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

from beaconfire.delivery.outbox import Writable
from beaconfire.protocols.port import Frame

_SEND: Final = socket.socket.send
_SOCKET: Final = attrgetter("direct")


def send_all(transports: Sequence[Writable], frames: Sequence[Frame]) -> list[int]:
    """Sends each frame to the `direct` socket of its transport; returns how many bytes of each were taken.

    None of them may be None. A socket that is full or broken takes nothing: its transport finds out which, and reports
    it in its own way. `map` and `extend` loop in C, and both go on after an exception where it came.
    """
    taken: list[int] = []
    sending = map(_SEND, map(_SOCKET, transports), frames)
    while len(taken) < len(frames):
        try:
            taken.extend(sending)
        except OSError:
            taken.append(0)
    return taken
