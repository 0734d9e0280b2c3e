"""A network between browser and server that can be cut."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: the other end is told by a reset, as by a router that has forgotten the connection."""


class Network:
    """Passes TCP connections on to a port of this machine. `url` is how browsers reach it."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.connections = 0
        """How many there have been."""

    def __enter__(self) -> Network:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing alone would not wake up who waits in accept.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        self.cut()
        for thread in self._threads[1:]:
            thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """Resets every connection there is. New ones get through."""
        with self._lock:
            ends = list(self._ends)
        for end in ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                end.shutdown(socket.SHUT_RD)  # wakes up who reads, and is not told to the other end

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            link = _Link(self, near, far)
            with self._lock:
                self._ends |= {near, far}
            for source, target in ((near, far), (far, near)):
                thread = threading.Thread(target=link.pass_on, args=(source, target), daemon=True)
                self._threads.append(thread)
                thread.start()

    def forget(self, ends: set[socket.socket]) -> None:
        with self._lock:
            self._ends -= ends


class _Link:
    """Two sockets and the two threads that read them; the last one to end closes both."""

    def __init__(self, network: Network, near: socket.socket, far: socket.socket) -> None:
        self._network = network
        self._ends = {near, far}
        self._readers = 2
        self._lock = threading.Lock()

    def pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RD)
        with self._lock:
            self._readers -= 1
            if self._readers:
                return
        self._network.forget(self._ends)
        for end in self._ends:
            end.close()
