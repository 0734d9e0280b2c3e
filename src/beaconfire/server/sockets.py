"""Options of listening sockets. Accepted connections inherit them, which is cheaper than setting each."""

from __future__ import annotations

import socket
from typing import Any, Final

_KEEPALIVE: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""TCP keepalive probes, which find dead peers where there are no pings. Not every system has all three options."""

_BUFFER_MAX: Final = 1 << 30
"""The largest SO_SNDBUF that fits an int. A system with a lower limit uses its own limit."""


def keep_alive(listener: Any) -> None:
    """Enables TCP keepalive."""
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def limit_send_buffer(listener: Any, size: int) -> None:
    """Bounds the kernel's send buffer of each connection. 0 changes nothing.

    By default Linux lets the buffer grow to `net.ipv4.tcp_wmem`, 4 MB and more, for a peer that reads nothing.
    """
    if size:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, min(size, _BUFFER_MAX))


def base_url(sock: Any, *, tls: bool) -> str:
    """The URL of a listening socket, with its real port."""
    host, port = sock.getsockname()[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
