"""One echo server for each event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop

from .peer import Peer
from .server import EchoServer

Connect = Callable[[], Peer]


@pytest.fixture(scope="package", params=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with EchoServer(factory) as running:
        yield running


@pytest.fixture
def peer(server: EchoServer) -> Iterator[Peer]:
    """A client whose handshake has been accepted."""
    with Peer.open(server.port) as connected:
        yield connected
