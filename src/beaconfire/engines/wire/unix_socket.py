"""Rules of Unix sockets that both ends check."""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

from beaconfire.base.errors import BeaconfireError

PATH_BYTES_MAX: Final = 103
"""The longest path of a socket. `sun_path` has 104 bytes on macOS and 108 on Linux, with a zero at the end."""

_CREDENTIALS: Final = struct.Struct("3i")
"""`struct ucred` of Linux: process, user and group."""


class HubSocketError(BeaconfireError):
    """The socket of the hub cannot be used. The message names its path and the remedy."""


def check_path(path: str) -> None:
    """Raises HubSocketError if the path is too long for a Unix socket."""
    length = len(os.fsencode(path))
    if length > PATH_BYTES_MAX:
        raise HubSocketError(
            f"the path of the hub's socket has {length} bytes, and a Unix socket can have {PATH_BYTES_MAX}: {path}. "
            "Use a shorter path"
        )


def peer_problem(connected: socket.socket) -> str:
    """Why the process at the other end must not be trusted: it belongs to another user. Empty if it may be trusted, or
    if the system does not tell its user."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return ""
    credentials = connected.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    uid = _CREDENTIALS.unpack(credentials)[1]
    if uid == os.geteuid():
        return ""
    return f"the process at the other end belongs to the user {uid}, and this one to {os.geteuid()}"
