"""The listening sockets of all slots, which the supervisor opens and the workers inherit.

Each slot has a socket of its own with SO_REUSEPORT, so the kernel spreads new connections evenly over the slots
(socket(7)). The supervisor keeps the sockets open, so connections wait in the queue of a slot whose worker is being
replaced: none is refused or reset.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from beaconfire.base.errors import BeaconfireError
from beaconfire.server.sockets import keep_alive, limit_send_buffer
from beaconfire.transports.options import ServerOptions

Listeners: TypeAlias = Sequence[Sequence[socket.socket]]
"""The sockets of each slot: one for each address of `server.host`."""


class CannotListen(BeaconfireError):
    """An address of `server.host` and `server.port` cannot be used. The text names the address and the reason."""


def open_listeners(options: ServerOptions, slots: int) -> Listeners:
    """Opens the sockets of all slots. All slots have the same port, also if `server.port` is 0.

    Raises CannotListen, and then no socket stays open.
    """
    with contextlib.ExitStack() as opened:
        listeners: list[list[socket.socket]] = [[] for _ in range(slots)]
        port = options.port
        for family, host in _addresses(options):
            _check_free(family, host, port)
            for sockets in listeners:
                sock = opened.enter_context(_bound(family, host, port, shared=True))
                port = sock.getsockname()[1]
                sockets.append(sock)
        for sockets in listeners:
            for sock in sockets:
                keep_alive(sock)
                limit_send_buffer(sock, int(options.send_buffer_max))
                with _reported(sock.getsockname()[0], port):
                    sock.listen(options.backlog)
        opened.pop_all()
        return listeners


def _addresses(options: ServerOptions) -> list[tuple[int, str]]:
    """The families and numeric addresses of `server.host`."""
    with _reported(options.host, options.port):
        found = socket.getaddrinfo(options.host or None, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _check_free(family: int, host: str, port: int) -> None:
    """Raises CannotListen if another process listens there.

    A socket with SO_REUSEPORT alone would share the port with a second server of the same user, without an error.
    """
    if port:
        _bound(family, host, port, shared=False).close()


def _bound(family: int, host: str, port: int, *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        with _reported(host, port):
            sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _reported(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotListen(
            f"cannot listen on server.host {host}, server.port {port}: {error.strerror or error}. "
            "Stop the program that uses the address, or use another one"
        ) from error
