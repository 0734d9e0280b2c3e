"""Connections in memory, in place of Unix sockets: bytes arrive in order, in random pieces, whenever the simulation
says so, and are lost only when a connection is cut."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from typing import Any, Final

from beaconfire.engines.wire.unix_socket import _CREDENTIALS
from tests.simulation.steps import WaitingSteps

KERNEL_BYTES: Final = 1000
"""How much a connection takes although nobody reads. More waits in the process that writes."""

MakeProtocol = Callable[[], asyncio.Protocol]


class OwnSocket:
    """Tells that the process at the other end belongs to this user."""

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        return _CREDENTIALS.pack(os.getpid(), os.geteuid(), os.getegid())


class Endpoint(asyncio.Transport):
    """One end of a connection. `advance` makes the next thing happen here that is possible."""

    peer: Endpoint

    def __init__(self, rng: random.Random, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._rng = rng
        self.protocol = protocol
        self.inbox = bytearray()
        """What the peer has written and this end has not read."""
        self._peer_has_ended = False
        self._is_open = False
        self._reads = True
        self._is_ending = False
        self._is_full = False
        self._high = 0
        self.is_lost = False
        self.is_stalled = False
        """The process does not run, so it reads nothing."""

    @property
    def can_advance(self) -> bool:
        if self.is_lost or self.is_stalled:
            return False
        if self._is_ending:
            return not self.get_write_buffer_size()
        return not self._is_open or (bool(self.inbox) and self._reads) or (self._peer_has_ended and not self.inbox)

    def advance(self) -> None:
        if not self._is_open:
            self.open()
        elif self._is_ending:
            self._lose(None)
        elif self.inbox:
            count = len(self.inbox) if self._rng.random() < 0.6 else self._rng.randint(1, len(self.inbox))
            data = bytes(self.inbox[:count])
            del self.inbox[:count]
            self.peer._on_drained()
            self.protocol.data_received(data)
        else:
            self._lose(self._rng.choice((None, ConnectionResetError("reset"))))

    def open(self) -> None:
        self._is_open = True
        self.protocol.connection_made(self)

    def cut(self) -> None:
        """A part of what is on its way still arrives, then both ends find the end of the connection."""
        for each in (self, self.peer):
            del each.inbox[self._rng.randint(0, len(each.inbox)) :]
            each._peer_has_ended = True

    def _lose(self, error: Exception | None) -> None:
        self.is_lost = True
        self._is_ending = True
        self.inbox.clear()
        self.peer._peer_has_ended = True
        self.protocol.connection_lost(error)

    def _on_drained(self) -> None:
        if self._is_full and not self.is_lost and self.get_write_buffer_size() <= self._high // 4:
            self._is_full = False
            self.protocol.resume_writing()

    # asyncio.Transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return OwnSocket() if name == "socket" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high or 0

    def get_write_buffer_size(self) -> int:
        return 0 if self.peer.is_lost else max(0, len(self.peer.inbox) - KERNEL_BYTES)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._is_ending or self.peer.is_lost or self._peer_has_ended:
            return
        self.peer.inbox += data
        if not self._is_full and self.get_write_buffer_size() > self._high:
            self._is_full = True
            self.protocol.pause_writing()

    def is_closing(self) -> bool:
        return self._is_ending

    def pause_reading(self) -> None:
        self._reads = False

    def resume_reading(self) -> None:
        self._reads = True

    def close(self) -> None:
        self._is_ending = True

    def abort(self) -> None:
        if not self._is_ending:
            self._is_ending = True
            del self.peer.inbox[self._rng.randint(0, min(len(self.peer.inbox), KERNEL_BYTES)) :]


class MemoryListener:
    """Implements `engines.hub.Listener`."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def serve(self, make_protocol: MakeProtocol) -> None:
        self._network.accepting = make_protocol

    def close(self) -> None:
        self._network.accepting = None


class Network:
    """All connections, and the one place where workers can connect to."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.connecting = WaitingSteps(rng)
        self.accepting: MakeProtocol | None = None
        self.endpoints: list[Endpoint] = []
        self.cuts = 0

    def open(self, make_protocol: MakeProtocol) -> Endpoint:
        """Returns the end of the worker. Raises OSError if no hub is there."""
        if self.accepting is None:
            raise ConnectionRefusedError(111, "Connection refused")
        near, far = Endpoint(self._rng, make_protocol()), Endpoint(self._rng, self.accepting())
        near.peer, far.peer = far, near
        self.endpoints += (near, far)
        near.open()
        return near

    @property
    def ready(self) -> list[Endpoint]:
        """The ends where something can happen."""
        self.endpoints = [each for each in self.endpoints if not (each.is_lost and each.peer.is_lost)]
        return [each for each in self.endpoints if each.can_advance]

    def advance(self) -> None:
        self._rng.choice(self.ready).advance()

    def cut(self, end: Endpoint) -> None:
        self.cuts += 1
        end.cut()
