"""The connections of the simulation end as those of a kernel do."""

from __future__ import annotations

import asyncio
import random

from tests.simulation.workers.network import KERNEL_BYTES, Endpoint, MemoryListener, Network


class PausingProtocol(asyncio.Protocol):
    """Reads nothing while the peer does not read, as the hub does."""

    def __init__(self) -> None:
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Endpoint)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


def test_an_end_that_waits_for_its_peer_finds_that_the_peer_was_killed() -> None:
    """Although it reads nothing, and the peer has left data. The write fails."""

    async def scenario() -> None:
        network = Network(random.Random(0))
        hub = PausingProtocol()
        await MemoryListener(network).serve(lambda: hub)
        worker = network.open(PausingProtocol)
        worker.peer.advance()
        hub.transport.write(b"x" * (KERNEL_BYTES + 1))
        worker.write(b"a request")
        assert not worker.peer.can_advance, "the hub waits"
        worker.cut()
        worker.inbox.clear()
        worker.peer.inbox[:] = b"a request"
        while network.ready:
            network.advance()
        assert hub.is_lost

    asyncio.run(scenario())
