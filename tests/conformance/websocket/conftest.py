"""One echo server for each event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop

from .peer import Peer
from .server import EchoServer

Connect = Callable[[], Peer]


LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
LONG_TIMEOUT_S = 60
"""Longer than any deadline of a test."""


@pytest.fixture(scope="package", params=LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    with EchoServer(LOOPS[request.param]) as running:
        yield running


@pytest.fixture(scope="package", params=LOOPS)
def server_without_timeouts(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    """For peers that must not be cut, however slow a busy machine makes them."""
    with EchoServer(LOOPS[request.param], write_timeout_s=LONG_TIMEOUT_S, close_timeout_s=LONG_TIMEOUT_S) as running:
        yield running


@pytest.fixture
def peer(server: EchoServer) -> Iterator[Peer]:
    """A client whose handshake has been accepted."""
    with Peer.open(server.port) as connected:
        yield connected
