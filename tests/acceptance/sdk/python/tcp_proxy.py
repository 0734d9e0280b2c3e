"""A TCP proxy between a client and the server that can interrupt connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

_FIRST_BYTES = 16 * 1024
"""How much of the data is kept to tell connections apart."""


class TcpProxy:
    """Forwards bytes in both directions on `port`."""

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        """Where new connections go to."""
        self._ends: list[_End] = []
        self._is_cut = False
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._server: asyncio.Server | None = None
        self.port: int = self._socket.getsockname()[1]

    async def open(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(self._accept, sock=self._socket)

    def cut(self) -> None:
        """Resets every connection, and refuses new ones until `restore`."""
        self._is_cut = True
        for end in self._ends:
            end.abort()
        self._ends.clear()

    def restore(self) -> None:
        self._is_cut = False

    def mute(self, *, upstream: bool = False, downstream: bool = False) -> None:
        """Silently drops all data of the existing connections to the server, to the client, or both."""
        for end in self._ends:
            end.is_muted = end.is_muted or (upstream if end.is_client_side else downstream)

    def mute_those_that_sent(self, word: bytes) -> None:
        """Silently drops all data to the existing clients that have sent this word in their first kilobytes."""
        for end in self._ends:
            if end.is_client_side and word in end.first_data and end.peer is not None:
                end.peer.is_muted = True

    def close(self) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()

    def _accept(self) -> _End:
        return _End(self._join, is_client_side=True)

    def _join(self, client: _End) -> None:
        if self._is_cut:
            client.abort()
            return
        client.task = asyncio.ensure_future(self._connect(client))

    async def _connect(self, client: _End) -> None:
        server = _End(None, is_client_side=False)
        try:
            await asyncio.get_running_loop().create_connection(lambda: server, "127.0.0.1", self.server_port)
        except OSError:
            client.abort()
            return
        client.meet(server)
        self._ends += [client, server]
        if self._is_cut:
            self.cut()


class _End(asyncio.Protocol):
    """One end of a forwarded connection. It writes received data to its peer."""

    def __init__(self, on_open: Callable[[_End], None] | None, is_client_side: bool) -> None:
        self._on_open = on_open
        self._transport: asyncio.Transport | None = None
        self.peer: _End | None = None
        self.first_data = b""
        self._early = b""
        self.is_client_side = is_client_side
        self.is_muted = False
        self.task: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._on_open is not None:
            self._on_open(self)

    def meet(self, peer: _End) -> None:
        self.peer, peer.peer = peer, self
        peer.say(self._early)

    def say(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        if len(self.first_data) < _FIRST_BYTES:
            self.first_data += data[:_FIRST_BYTES]
        if self.is_muted:
            return
        if self.peer is None:
            self._early += data
        else:
            self.peer.say(data)

    def connection_lost(self, error: Exception | None) -> None:
        # A muted end does not forward the end of the connection either. This is a half-open connection.
        if self.peer is not None and not self.is_muted and self.peer._transport is not None:
            self.peer._transport.close()

    def abort(self) -> None:
        assert self._transport is not None
        self._transport.abort()
