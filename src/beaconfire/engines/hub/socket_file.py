"""The socket of the hub in the file system: one hub for each path, and only its own user may connect."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from beaconfire.engines.wire.unix_socket import HubSocketError, check_path

_UMASK: Final = 0o177
"""The socket is created with mode 0600."""

_BACKLOG: Final = 1024


class HubSocket:
    """A listening socket at `path`.

    A lock on the file `path` + ".lock" tells whether a hub uses the path: the system releases the lock when the process
    ends in any way. So a socket that a dead hub has left behind is replaced, and that of a living hub never. The file
    of the lock stays, because a hub that removed it could lock another file than the next one.
    """

    def __init__(self, path: str) -> None:
        """Blocks for a moment: call this before any client is connected. Raises HubSocketError, which names the path,
        if another hub uses the path, if something else than a socket is there, or if the system refuses it."""
        check_path(path)
        self.path = path
        self._lock = _lock(path)
        try:
            _remove_socket(path)
            self._socket = _bind(path)
        except BaseException:
            os.close(self._lock)
            raise
        self._server: asyncio.Server | None = None

    async def serve(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        """See `Listener.serve`."""
        self._server = await asyncio.get_running_loop().create_unix_server(make_protocol, sock=self._socket)

    def close(self) -> None:
        """Removes the socket and its file, and releases the path. Idempotent."""
        if self._lock < 0:
            return
        if self._server is not None:
            self._server.close()
        self._socket.close()
        Path(self.path).unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = -1


def _lock(path: str) -> int:
    """The descriptor of a locked file."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise HubSocketError(
            f"cannot create {path}.lock: {error.strerror}. Use a path that this user can write"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise HubSocketError(
            f"another hub uses the socket {path}: stop it, or use another path for this one"
        ) from error
    return lock


def _remove_socket(path: str) -> None:
    """Removes the socket of a dead hub."""
    file = Path(path)
    if file.is_socket():
        file.unlink()
    elif file.exists() or file.is_symlink():
        raise HubSocketError(f"{path} exists and is not a socket: remove it, or use another path for the hub")


def _bind(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(_UMASK)
    try:
        listening.bind(path)
    except OSError as error:
        listening.close()
        raise HubSocketError(f"cannot create the socket {path}: {error.strerror}") from error
    finally:
        os.umask(previous)
    listening.listen(_BACKLOG)
    listening.setblocking(False)
    return listening
