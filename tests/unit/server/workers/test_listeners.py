"""The listening sockets of the slots."""

from __future__ import annotations

import socket

import pytest

from beaconfire.server.workers.listeners import CannotListen, open_listeners
from beaconfire.transports.options import ServerOptions


def test_all_slots_listen_on_the_same_port() -> None:
    """The port is a free one, because `server.port` is 0. All connections are accepted by one of the slots."""
    listeners = open_listeners(ServerOptions(host="127.0.0.1", port=0, backlog=16), 3)
    ports = {sock.getsockname()[1] for sockets in listeners for sock in sockets}
    clients = [socket.create_connection(("127.0.0.1", port)) for port in ports for _ in range(12)]
    assert len(ports) == 1
    accepted = 0
    for (listener,) in listeners:
        while True:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                break
            accepted += 1
        listener.close()
    for client in clients:
        client.close()
    assert accepted == 12


def test_a_second_server_on_the_port_is_refused() -> None:
    """Also with several workers: SO_REUSEPORT alone would let both have the port."""
    first = open_listeners(ServerOptions(host="127.0.0.1", port=0), 2)
    port = first[0][0].getsockname()[1]
    with pytest.raises(CannotListen, match=rf"server.host 127.0.0.1, server.port {port}: Address already in use"):
        open_listeners(ServerOptions(host="127.0.0.1", port=port), 2)
    for (sock,) in first:
        sock.close()


def test_an_address_of_another_machine_is_refused() -> None:
    """The error names the address and the remedy."""
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1.*use another one"):
        open_listeners(ServerOptions(host="192.0.2.1", port=0), 2)
