"""One echo server for each event loop implementation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop

from .raw_client import RawClient
from .server import EchoServer

Connect = Callable[[], RawClient]


LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
LONG_TIMEOUT_S = 60
"""Longer than the timeout of any test."""


@pytest.fixture(scope="package", params=LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    with EchoServer(LOOPS[request.param]) as running:
        yield running


@pytest.fixture(scope="package", params=LOOPS)
def server_without_timeouts(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    """A server whose timeouts do not end, on a busy machine with slow peers either."""
    with EchoServer(LOOPS[request.param], write_timeout_s=LONG_TIMEOUT_S, close_timeout_s=LONG_TIMEOUT_S) as running:
        yield running


@pytest.fixture
def peer(server: EchoServer) -> Iterator[RawClient]:
    """A client whose handshake has been accepted."""
    with RawClient.open(server.port) as connected:
        yield connected
