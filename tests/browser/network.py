"""Networks between browser and server: one that can fail, and one with a proxy that buffers responses."""

from __future__ import annotations

import http.client
import http.server
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends a reset."""


class Network:
    """Forwards TCP connections to a port of this machine. `url` is the address for browsers."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: set[socket.socket] = set()
        self._links: list[_Link] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._is_away = False
        self.connections = 0
        """The number of accepted connections."""

    def __enter__(self) -> Network:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Closing alone does not wake up the thread that waits in accept.
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
        """Resets every existing connection. New connections work."""
        with self._lock:
            ends = list(self._ends)
        for end in ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                end.shutdown(socket.SHUT_RD)  # wakes up the reading thread; the other end receives nothing

    @contextmanager
    def away(self) -> Iterator[None]:
        """Resets all connections, and refuses new ones during the context."""
        self._is_away = True
        self.cut()
        try:
            yield
        finally:
            self._is_away = False

    def die(self) -> None:
        """Silently drops all data of the existing connections. New connections work."""
        for link in self._links:
            link.is_dead = True

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self._is_away:
                near.close()
                continue
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            link = _Link(self, near, far)
            self._links.append(link)
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
    """Two sockets and the two threads that read them. The last thread closes both sockets."""

    def __init__(self, network: Network, near: socket.socket, far: socket.socket) -> None:
        self._network = network
        self._ends = {near, far}
        self._readers = 2
        self.is_dead = False
        self._lock = threading.Lock()

    def pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self.is_dead:
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


class BufferingProxy:
    """Forwards only complete responses, as virus scanners do, and nothing of an endless response. It does not support
    WebSocket. `url` is the address for browsers.
    """

    def __init__(self, port: int) -> None:
        self._upstream: set[http.client.HTTPConnection] = set()
        self._listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler(port, self._upstream))
        self._thread = threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def __enter__(self) -> BufferingProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown()
        for connection in list(self._upstream):
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)  # wakes up the reading thread
        self._listener.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.server_address[1]}"

    @staticmethod
    def _handler(port: int, upstream: set[http.client.HTTPConnection]) -> type[http.server.BaseHTTPRequestHandler]:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                connection = http.client.HTTPConnection("127.0.0.1", port)
                upstream.add(connection)
                with suppress(OSError, http.client.HTTPException):
                    body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                    headers = {"Origin": self.headers.get("Origin", "")}
                    connection.request(self.command, self.path, body, headers)
                    answer = connection.getresponse()
                    text = answer.read()
                    self.send_response(answer.status)
                    for name, value in answer.getheaders():
                        if name.startswith("access-control-"):
                            self.send_header(name, value)
                    self.send_header("Content-Length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text)
                upstream.discard(connection)
                connection.close()

            do_GET = do_POST

            def log_message(self, format: str, *args: object) -> None:
                """Logs nothing."""

        return Handler
