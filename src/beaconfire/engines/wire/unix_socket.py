"""Rules of Unix sockets that both ends check, and how a worker opens a connection."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from beaconfire.base.errors import BeaconfireError

PATH_BYTES_MAX: Final = 103
"""The longest path of a socket. `sun_path` has 104 bytes on macOS and 108 on Linux, with a zero at the end."""

OpenConnection: TypeAlias = Callable[[Callable[[], asyncio.Protocol], str], Awaitable[object]]
"""Connects a new protocol to the hub at a path. Returns after `connection_made`. Raises OSError if that fails. A
caller that is cancelled closes the connection itself."""

_CREDENTIALS: Final = struct.Struct("3i")
"""`struct ucred` of Linux: process, user and group."""


class HubSocketError(BeaconfireError):
    """The socket of the hub cannot be used. The message names its path and the remedy."""


async def open_unix_connection(make_protocol: Callable[[], asyncio.Protocol], path: str) -> object:
    """Implements `OpenConnection` with a Unix socket."""
    return await asyncio.get_running_loop().create_unix_connection(make_protocol, path)


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
